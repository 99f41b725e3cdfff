//! Promoting a standby.

use std::time::Duration;

use qluster_consensus::protocol::database::{Promotion, SyncRule};
use secrecy::ExposeSecret;
use tokio::task::JoinHandle;

use super::CHECK_PERIOD;
use crate::database::Postgres;
use crate::database::error::{Error, Result};
use crate::database::sessions::client::{QUERY_TIMEOUT, To, cell, one, within};
use crate::database::sessions::report::Session;
use crate::formats::directions::Directions;
use crate::formats::{self, ROLE};
use crate::report;

/// How often the checkpoint after a promotion is tried (clients may use all connections), and the pause after a failed try.
const CHECKPOINT_TRIES: u32 = 10;
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(2);

/// How long creating the replication role, or changing it, may take.
pub(crate) const ROLE_TIMEOUT: Duration = Duration::from_secs(10);

impl Postgres {
    pub(crate) async fn do_promote(&self, rule: SyncRule) -> Result<Promotion> {
        let turn = self.turn().await;
        if self.data_dir.postmaster.pid().is_none() {
            return Err(Error::Unfit("it does not run".into()));
        }
        let _guarded = self.guarded().await?;
        let session = self.answering().await?;
        if session.report(QUERY_TIMEOUT).await?.in_recovery {
            if let Directions::Follows(primary) = self.data_dir.settings.directions() {
                return Err(Error::Unfit(format!("it follows node {}: it must be fenced first", primary.node)));
            }
            let (shut, ()) = tokio::join!(self.shut_out(&turn, &session, &rule), self.slots_for(&session, &rule));
            shut?;
            within(QUERY_TIMEOUT, "promote it", session.client.batch_execute("SELECT pg_promote(false)")).await?;
            while session.report(QUERY_TIMEOUT).await.is_ok_and(|report| report.in_recovery) {
                tokio::time::sleep(CHECK_PERIOD).await;
            }
        } else {
            self.change_rule(&turn, &session, &rule).await?;
        }
        let report = session.report(QUERY_TIMEOUT).await?;
        let timeline = match report.timeline {
            Some(timeline) if !report.in_recovery => timeline,
            _ => {
                let text = format!("{report:?}");
                return Err(formats::Error { what: "report of a promoted database", text }.into());
            }
        };
        let start = self.blocking(&turn, move |data_dir| {
            // Whoever starts it next, even unasked, starts a standby.
            data_dir.create_standby_signal()?;
            let past = data_dir.control.past_of(timeline)?;
            Ok(if data_dir.marks.strayed() { past.begin_of_parent() } else { past.begin_of_last() })
        });
        let start = start.await?;
        self.create_role(&session).await?;
        self.checkpoint();
        self.status.outdate();
        self.observe().await;
        tracing::info!(timeline, %start, "promoted PostgreSQL");
        Ok(Promotion { timeline, start })
    }

    /// Makes a checkpoint (on a standby: a restartpoint) in a task of its own, since that takes long with much memory. Only a
    /// rewind depends on it, which checks by itself, and whoever waits for space on the disk.
    pub(crate) fn checkpoint(&self) -> Option<JoinHandle<()>> {
        let (place, user) = self.sessions.known()?;
        Some(tokio::spawn(async move {
            let checkpoint = async || {
                let client = place.connect(&user, To::Act).await?;
                let done = client.batch_execute("CHECKPOINT").await;
                done.map_err(|source| Error::Query { attempted: "checkpoint", source })
            };
            // Without it, rewinds would wait in vain for PostgreSQL's own next checkpoint. If this postmaster has ended
            // meanwhile, another one may run here: a restartpoint does it no harm.
            for _ in 0..CHECKPOINT_TRIES {
                match checkpoint().await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(error = report::chain(&error), "a checkpoint failed"),
                }
                tokio::time::sleep(CHECKPOINT_PAUSE).await;
            }
        }))
    }

    /// Creates the role that standbys connect as, with the rights that pg_rewind needs, or brings it up to date.
    async fn create_role(&self, session: &Session) -> Result<()> {
        let mut sql = format!(
            "DO $$ BEGIN
               IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
                 CREATE ROLE {ROLE} LOGIN REPLICATION;
               ELSIF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}' AND rolcanlogin AND rolreplication) THEN
                 ALTER ROLE {ROLE} LOGIN REPLICATION;
               END IF;
               IF NOT pg_has_role('{ROLE}', 'pg_read_all_settings', 'member') THEN
                 GRANT pg_read_all_settings TO {ROLE};
               END IF;
               IF NOT pg_has_role('{ROLE}', 'pg_read_all_stats', 'member') THEN
                 GRANT pg_read_all_stats TO {ROLE};
               END IF;\n"
        );
        for function in [
            "pg_ls_dir(text,boolean,boolean)",
            "pg_stat_file(text,boolean)",
            "pg_read_binary_file(text)",
            "pg_read_binary_file(text,bigint,bigint,boolean)",
        ] {
            sql += &format!(
                "IF NOT has_function_privilege('{ROLE}', 'pg_catalog.{function}', 'execute') THEN
                   GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {ROLE};
                 END IF;\n"
            );
        }
        sql += "END $$;";
        within(ROLE_TIMEOUT, "create the replication role", session.client.batch_execute(&sql)).await?;
        self.set_first_password(session).await
    }

    /// Sets the password of the replication role if it has none. If it has one, standbys use that now, and another one can
    /// wait until the promotion is over.
    async fn set_first_password(&self, session: &Session) -> Result<()> {
        if !self.data_dir.passwords.is_needed() {
            return Ok(());
        }
        let sql = format!("SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = '{ROLE}'");
        let row = one(&session.client, QUERY_TIMEOUT, "look at the replication role", &sql).await?;
        if cell(&row, 0)? { self.set_password(session).await } else { Ok(()) }
    }

    /// Sets the password of the replication role, which exists.
    pub(crate) async fn set_password(&self, session: &Session) -> Result<()> {
        let passwords = &self.data_dir.passwords;
        let Some(password) = passwords.to_set() else { return Ok(()) };
        let pid = self.data_dir.postmaster.pid();
        // Hashed here, so that the password is in no log.
        let hash = postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes());
        let sql = format!("ALTER ROLE {ROLE} PASSWORD '{hash}'");
        let attempted = "set the password of the replication role";
        within(ROLE_TIMEOUT, attempted, session.client.batch_execute(&sql)).await?;
        passwords.was_set(pid, password);
        Ok(())
    }
}
