//! Shutting clients out before a promotion, and letting them in after it.
//!
//! Readers may use a standby. A promotion first shuts everybody out, by the closed form of our `hba_file`, and ends the
//! sessions of clients. [`Database::admit`](qluster_consensus::protocol::database::Database::admit) writes the open form
//! again. The form is in the file, so it survives the daemon. Whoever starts or directs a standby opens it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use qluster_consensus::protocol::database::SyncRule;
use rustix::process::Signal;

use super::CHECK_PERIOD;
use super::access_rules::Refused;
use crate::database::error::{Error, Result};
use crate::database::sessions::client::{QUERY_TIMEOUT, cell, within};
use crate::database::sessions::report::Session;
use crate::database::{Postgres, Turn};
use crate::formats::directions::Directions;
use crate::formats::hba::Access;
use crate::formats::sync_names::sync_names;
use crate::os::lock::lock;
use crate::os::process;

/// How long the sessions of clients may take to end.
const SESSION_END_TIMEOUT: Duration = Duration::from_secs(5);

/// Which postmaster is known to let clients in.
#[derive(Default)]
pub(crate) struct ClientAccess {
    admits: Mutex<Option<i32>>,
}

impl ClientAccess {
    fn is_open(&self, pid: Option<i32>) -> bool {
        pid.is_some() && *lock(&self.admits) == pid
    }

    fn set(&self, pid: Option<i32>) {
        *lock(&self.admits) = pid;
    }
}

impl Postgres {
    /// Shuts clients out of a standby that is about to be promoted under `rule`. After that there is no session of a client,
    /// and no new one is possible.
    pub(super) async fn shut_out(&self, turn: &Turn, session: &Session, rule: &SyncRule) -> Result<()> {
        self.client_access.set(None);
        self.sync_rule.forget();
        let names = sync_names(rule);
        let stamp = self.direct(turn, Directions::Leads(names.clone()), Some(Access::Closed)).await?;
        self.loaded(&stamp).await?;
        self.end_sessions(turn, session).await?;
        self.sync_rule.set_in_force(self.data_dir.postmaster.pid(), names);
        Ok(())
    }

    /// Ends the sessions of clients. That includes sessions that are still being authenticated by the old rules, and that no
    /// view shows yet: they are the children of the postmaster that have a connection. Later connections are refused.
    async fn end_sessions(&self, turn: &Turn, session: &Session) -> Result<()> {
        let connected = self.blocking(turn, |data_dir| {
            let Some(postmaster) = data_dir.postmaster.pid() else { return Ok(BTreeSet::new()) };
            // The postmaster listens on these, and all its children have them. It closes a connection when it has forked.
            let own = process::sockets(postmaster)?;
            let mut connected = BTreeSet::new();
            for pid in process::children(postmaster) {
                if !process::sockets(pid)?.is_subset(&own) {
                    connected.insert(pid);
                }
            }
            Ok(connected)
        });
        let mut left = connected.await?;
        // Asked after the children were listed: a session that is authenticated by now is shown as what it is.
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type <> 'client backend' OR pid = pg_backend_pid()";
        let rows = within(QUERY_TIMEOUT, "list its sessions", session.client.query(sql, &[])).await?;
        for row in &rows {
            left.remove(&cell::<i32>(row, 0)?);
        }
        let begun = Instant::now();
        let mut checks = 0;
        loop {
            left.retain(|&pid| process::works_in(pid, &self.data_dir.path));
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > SESSION_END_TIMEOUT {
                return Err(Error::Unfit(format!("sessions of clients do not end: processes {left:?}")));
            }
            if checks % 100 == 0 {
                left.iter().try_for_each(|&pid| process::signal(pid, Signal::TERM))?;
            }
            checks += 1;
            tokio::time::sleep(CHECK_PERIOD).await;
        }
    }

    pub(crate) async fn do_admit(&self) -> Result<()> {
        let turn = self.turn().await;
        let directions @ Directions::Leads(_) = self.data_dir.settings.directions() else {
            return Err(Error::Unfit("it is no primary".into()));
        };
        let pid = self.data_dir.postmaster.pid();
        if self.client_access.is_open(pid) {
            return Ok(());
        }
        let session = self.answering().await?;
        if session.report(QUERY_TIMEOUT).await?.in_recovery {
            return Err(Error::Unfit("it is no primary yet".into()));
        }
        let stamp = self.direct(&turn, directions.clone(), Some(Access::Open)).await?;
        let client = self.loaded(&stamp).await?;
        // PostgreSQL does not load a file with an error: the closed form would stay in force.
        if let Some(Refused { error, replaceable }) = self.judge_access(&turn, &client).await? {
            let error = format!("pg_hba.conf has an error ({}, {error})", self.data_dir.own.hba_file.display());
            if !replaceable {
                return Err(Error::Unfit(error));
            }
            let stamp = self.direct(&turn, directions, Some(Access::Open)).await?;
            let client = self.loaded(&stamp).await?;
            if self.judge_access(&turn, &client).await?.is_some() {
                return Err(Error::Unfit(error));
            }
            tracing::warn!(error, "clients are let in by the last rules without an error");
        }
        self.client_access.set(pid);
        Ok(())
    }
}
