//! What can go wrong with the store.

use std::path::PathBuf;

use thiserror::Error;

use super::Identity;
use crate::model::NodeId;
use crate::protocol::version::UnknownVersion;

/// What went wrong with the store.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is none.
    #[error("there is no store at {}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A store cannot be created, since something is at its place.
    #[error("a new store cannot be created at {}: a file is there already", path.display())]
    Exists {
        /// Where it should be created.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("the store {store} is in use by another process")]
    InUse {
        /// Which store.
        store: String,
    },
    /// The file is something else.
    #[error("{store} is not a store of qluster: {reason}")]
    Foreign {
        /// Which store.
        store: String,
        /// What shows that.
        reason: String,
    },
    /// A newer qluster wrote it.
    #[error("the store {store} has the format {found}, of a newer qluster; this one knows formats up to {known}")]
    Newer {
        /// Which store.
        store: String,
        /// Its format.
        found: u32,
        /// The newest format that is known.
        known: u32,
    },
    /// Its contents are of a version that this program does not know.
    #[error("the store is of a newer qluster, or of one that is too old")]
    Version(#[from] UnknownVersion),
    /// The file is damaged.
    #[error("the store {store} is damaged: {reason}")]
    Damaged {
        /// Which store.
        store: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refused something.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// redb failed.
    #[error("cannot {what} the store")]
    Database {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: Box<redb::Error>,
    },
    /// A value cannot be encoded, or a stored value cannot be decoded.
    #[error("cannot {what} in the store")]
    Value {
        /// What was attempted.
        what: String,
        /// Why it failed.
        #[source]
        source: postcard::Error,
    },
    /// A node cannot be the only voter of a cluster, since it is no member of it.
    #[error("node {node} cannot be made the only voter of its cluster: it is no member")]
    Alone {
        /// Which node.
        node: NodeId,
    },
    /// An entry of the log is missing.
    #[error("the log in the store has a hole: entry {index} is missing")]
    Hole {
        /// The index of the entry.
        index: u64,
    },
    /// Appended entries do not continue the log.
    #[error("entry {given} does not continue the log, which ends at {}", last.map_or("nothing".into(), |at| at.to_string()))]
    Gap {
        /// The end of the log.
        last: Option<u64>,
        /// The index of the entry that was to be appended.
        given: u64,
    },
    /// The store belongs to another node.
    #[error(
        "the store belongs to node {} of the cluster {}, not to node {} of the cluster {}",
        stored.node, stored.cluster, given.node, given.cluster
    )]
    OtherIdentity {
        /// The node that it belongs to.
        stored: Identity,
        /// The node that was to use it.
        given: Identity,
    },
    /// A write failed, and the store has been closed since then.
    #[error("the store failed and is closed until the node is restarted: {cause}")]
    Failed {
        /// The first failure, with its causes.
        cause: String,
    },
}

impl StoreError {
    /// For `map_err`: the database failed at what was attempted.
    pub(super) fn database<E: Into<redb::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Database { what, source: Box::new(source.into()) }
    }
}

impl From<StoreError> for std::io::Error {
    fn from(error: StoreError) -> Self {
        Self::other(error)
    }
}
