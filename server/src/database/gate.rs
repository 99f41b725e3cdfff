//! Who gets in, and that what was written is what the postmaster has loaded.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use qluster_consensus::protocol::database::SyncRule;
use rustix::process::Signal;
use tokio_postgres::Client;

use super::access::Refused;
use super::error::{Error, Result};
use super::hba::Access;
use super::home::lock;
use super::replication::STEP;
use super::session::{self, PATIENCE, Session, To, cell, one, within};
use super::settings::{Directions, sync_names};
use super::{Postgres, Turn, drift, process};

/// How long the postmaster may take to load its configuration.
const LOAD: Duration = Duration::from_secs(10);

/// A postmaster that does nothing else has loaded its configuration by then.
const SOON: Duration = Duration::from_millis(250);

/// How long sessions may take to end.
const END: Duration = Duration::from_secs(5);

impl Postgres {
    /// Changes the directions of the running PostgreSQL, and who may connect, and answers with the stamp of this
    /// configuration. Does not wait until it is loaded.
    pub(super) async fn direct(&self, turn: &Turn, directions: Directions, access: Option<Access>) -> Result<String> {
        let written = self.blocking(turn, move |home| {
            // One that an earlier agent started may read `postgresql.conf` alone, which the user may have replaced.
            home.include_settings()?;
            home.write_access(access)?;
            home.write_settings(&directions)
        });
        let stamp = written.await?;
        self.reload().await?;
        Ok(stamp)
    }

    /// Waits until the postmaster has loaded the configuration with this stamp, who may connect included, and has
    /// signalled its children; answers with a connection that was made after.
    ///
    /// A session that was there before does not tell: it reads the files itself, at a signal for an earlier reload
    /// perhaps. A new one has the stamp from the postmaster, or by a signal that this sent after it had loaded it. Of
    /// the access files it still does not tell, which are loaded after the children are signalled; but whoever is
    /// forked next is forked after all of that, as the postmaster does one thing at a time.
    pub(super) async fn loaded(&self, stamp: &str) -> Result<Client> {
        let begun = Instant::now();
        while begun.elapsed() < LOAD {
            match self.try_loaded(stamp, begun.elapsed() > SOON).await {
                Ok(Some(client)) => return Ok(client),
                // Clients took all places, those for superusers too. They end.
                Err(error) if !session::is_crowded(&error) => return Err(error),
                Ok(None) | Err(_) => {}
            }
            tokio::time::sleep(STEP).await;
        }
        Err(Error::Unanswered { attempted: "load its settings", within: begun.elapsed() })
    }

    /// `late`: what keeps it from loading them is looked for.
    async fn try_loaded(&self, stamp: &str, late: bool) -> Result<Option<Client>> {
        let client = self.connect(To::Act).await?;
        let sql = "SELECT current_setting('qluster.stamp', true), current_setting('synchronous_standby_names'),
                          current_setting('primary_conninfo')";
        let row = one(&client, PATIENCE, "tell its settings", sql).await?;
        if cell::<Option<&str>>(&row, 0)? != Some(stamp) {
            if late {
                drift::check(&client).await?;
            }
            return Ok(None);
        }
        // What is read after our file undoes ours, while the stamp shows.
        let directions = self.home.directions();
        let conninfo = directions.primary().map_or(String::new(), |primary| self.home.own.conninfo(primary));
        let wanted = [("synchronous_standby_names", directions.sync_names()), ("primary_conninfo", &conninfo)];
        for (index, (name, value)) in wanted.into_iter().enumerate() {
            if cell::<&str>(&row, index + 1)? != value {
                return Err(Error::Unfit(undone(name)));
            }
        }
        // It makes room for the next.
        drop(client);
        self.connect(To::Act).await.map(Some)
    }

    /// Shuts clients out of a standby that is about to be promoted under `rule`: none is left after, and none can come.
    pub(super) async fn shut_out(&self, turn: &Turn, session: &Session, rule: &SyncRule) -> Result<()> {
        *lock(&self.admits) = None;
        *lock(&self.in_force) = None;
        let names = sync_names(rule);
        let stamp = self.direct(turn, Directions::Leads(names.clone()), Some(Access::Closed)).await?;
        self.loaded(&stamp).await?;
        self.end_sessions(turn, session).await?;
        *lock(&self.in_force) = self.home.pid().map(|pid| (pid, names));
        Ok(())
    }

    /// Ends the sessions of clients, those too that are just being authenticated by the rules before, and shown by no
    /// view yet: they are the children of the postmaster that have a connection. Whoever comes later is refused.
    async fn end_sessions(&self, turn: &Turn, session: &Session) -> Result<()> {
        let connected = self.blocking(turn, |home| {
            let Some(postmaster) = home.pid() else { return Ok(BTreeSet::new()) };
            // Those that are everybody's, it listens at; a connection it closes once it has forked.
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
        // Asked after the children were looked up: one that is now authenticated is shown as what it is.
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type <> 'client backend' OR pid = pg_backend_pid()";
        let rows = within(PATIENCE, "list its sessions", session.client.query(sql, &[])).await?;
        for row in &rows {
            left.remove(&cell::<i32>(row, 0)?);
        }
        let begun = Instant::now();
        let mut looks = 0;
        loop {
            left.retain(|&pid| process::works_in(pid, &self.home.data_dir));
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > END {
                return Err(Error::Unfit(format!("sessions of clients do not end: processes {left:?}")));
            }
            if looks % 100 == 0 {
                left.iter().try_for_each(|&pid| process::signal(pid, Signal::TERM))?;
            }
            looks += 1;
            tokio::time::sleep(STEP).await;
        }
    }

    pub(super) async fn do_admit(&self) -> Result<()> {
        let turn = self.turn().await;
        let directions @ Directions::Leads(_) = self.home.directions() else {
            return Err(Error::Unfit("it is no primary".into()));
        };
        let pid = self.home.pid();
        if pid.is_some() && *lock(&self.admits) == pid {
            return Ok(());
        }
        let session = self.answering().await?;
        if session.report(PATIENCE).await?.in_recovery {
            return Err(Error::Unfit("it is no primary yet".into()));
        }
        let stamp = self.direct(&turn, directions.clone(), Some(Access::Open)).await?;
        let client = self.loaded(&stamp).await?;
        // A file with an error is not loaded, and what was in force before, which lets nobody in, stays so.
        if let Some(Refused { error, replaceable }) = self.judge_access(&turn, &client).await? {
            let error = format!("pg_hba.conf has an error ({}, {error})", self.home.own.hba_file.display());
            if !replaceable {
                return Err(Error::Unfit(error));
            }
            let stamp = self.direct(&turn, directions, Some(Access::Open)).await?;
            let client = self.loaded(&stamp).await?;
            if self.judge_access(&turn, &client).await?.is_some() {
                return Err(Error::Unfit(error));
            }
            tracing::warn!(error, "clients are let in by the last rules that had none");
        }
        *lock(&self.admits) = pid;
        Ok(())
    }
}

/// That a setting of ours does not count.
pub(super) fn undone(name: &str) -> String {
    format!("something sets {name} after qluster does: take it out of PostgreSQL's settings (ALTER SYSTEM, too)")
}
