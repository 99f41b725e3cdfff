//! `qluster-server recover`: one node goes on alone after the majority of its cluster is lost for good.

use std::fmt::Write;

use qluster_consensus::node::recover::{RecoverError, Survivor};
use qluster_consensus::raft::store::{Store, StoreError};

use crate::start::known::is_managed;
use crate::start::settings::Settings;

/// Why a node did not go on alone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon is running.
    #[error("the node is running: stop it first (`systemctl stop qluster`, or SIGTERM)")]
    Running(#[source] StoreError),
    /// The store cannot be opened.
    #[error("the node's store cannot be used")]
    Store(#[source] StoreError),
    /// Consensus refuses.
    #[error("the cluster cannot be recovered from this node")]
    Recover(#[from] RecoverError),
    /// The settings do not fit what is on the disk; a sentence.
    #[error("{0}")]
    Refused(String),
    /// Nobody has confirmed it.
    #[error(
        "nothing was changed. Confirm with `recover --others-are-gone-for-good` if the other nodes are lost for good, or \
         will never be started again with what they have on their disks, and this node has the newest commits of all \
         that are left"
    )]
    NotConfirmed,
}

/// Reads the node's store, says by `tell` what it means if this node goes on alone, and does that if it is `confirmed`.
///
/// # Errors
///
/// It is not confirmed, the daemon is running, or this node cannot go on alone.
pub fn run(settings: &Settings, confirmed: bool, tell: impl Fn(&str)) -> Result<(), Error> {
    let store = Store::open(&settings.store()).map_err(|error| match error {
        StoreError::InUse { .. } => Error::Running(error),
        error => Error::Store(error),
    })?;
    let survivor = Survivor::find(store)?;
    if survivor.node().db_port.is_some() {
        match &settings.database {
            None => {
                return Err(Error::Refused("the node has a database: give its data directory, as for `run`".into()));
            }
            Some(database) if !is_managed(&database.data_dir) => {
                return Err(Error::Refused(format!(
                    "there is no database of this cluster in {}: without it, the node has nothing to go on with",
                    database.data_dir.display()
                )));
            }
            Some(_) => {}
        }
    }
    let needs_rewind = survivor.needs_rewind()?;
    tell(&outlook(&survivor)?);
    if !confirmed {
        return Err(Error::NotConfirmed);
    }
    let now = survivor.go_on_alone()?;
    tell(&format!("Done: node {} is the only member of the cluster {}. Start it with `run`.\n", now.node, now.cluster));
    if needs_rewind {
        tell(&format!(
            "Its database has diverged from the last primary: once it runs, let it lead with what it has by\n\
             POST /leader?node={}&accept-data-loss=true\n",
            now.node
        ));
    }
    Ok(())
}

/// What is known of the node, and which nodes would be given up, for people.
fn outlook(survivor: &Survivor) -> Result<String, RecoverError> {
    let identity = survivor.identity();
    let mut text = format!("node {} of the cluster {}\n", identity.node, identity.cluster);
    let starts = survivor.wal()?;
    // Writing to a string does not fail.
    let _ = match starts.0.last() {
        Some(start) => {
            writeln!(text, "  its WAL was written by primaries up to term {}, which began at {}", start.term, start.lsn)
        }
        None => writeln!(text, "  its WAL is older than the first primary"),
    };
    let _ = match survivor.last_primary() {
        Some((node, term)) if node == identity.node => {
            writeln!(text, "  it was the last primary that it knows of, in term {term}")
        }
        Some((node, term)) => writeln!(text, "  the last primary that it knows of was node {node}, in term {term}"),
        None => writeln!(text, "  it knows of no primary"),
    };
    for other in survivor.others() {
        let _ = writeln!(text, "  would be given up: node {}, a {}, at {}", other.id, other.role, other.api_address());
    }
    Ok(text)
}
