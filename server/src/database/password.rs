//! The password of the replication role, and how it is replaced while standbys stream.
//!
//! PostgreSQL knows one password of a role, and libpq tries one. While the cluster's secret is being replaced, nodes know
//! different ones, so: a primary sets the first that it knows, and a standby finds out which of those that it knows its
//! primary takes. A connection that stands is not touched by either.

use std::sync::Arc;
use std::time::Duration;

use qluster_consensus::protocol::database::{Database, DatabaseRole, Primary};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Client;

use super::Postgres;
use super::error::Result;
use super::home::{Home, lock};
use super::session::{self, PATIENCE, Session, cell, one, within};
use super::settings::{Directions, ROLE};

/// Between two looks at whether the password is still the right one.
const LOOK: Duration = Duration::from_secs(1);

/// How long PostgreSQL may take to change a role.
const CHANGE: Duration = Duration::from_secs(10);

/// The passwords of the replication role that are known at a time: the first is the one to be set.
#[derive(Clone)]
pub struct Passwords(Arc<dyn Fn() -> Vec<SecretString> + Send + Sync>);

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords")
    }
}

impl Passwords {
    /// Those that `now` gives each time that it is asked.
    pub fn new(now: impl Fn() -> Vec<SecretString> + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    fn now(&self) -> Vec<SecretString> {
        self.0()
    }
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

impl Home {
    /// The password to set as a primary.
    fn own_password(&self) -> Option<SecretString> {
        self.passwords.as_ref()?.now().into_iter().next()
    }

    /// The passwords to try at a primary: the one that was taken last first.
    fn passwords_to_try(&self) -> Vec<SecretString> {
        let mut known = self.passwords.as_ref().map(Passwords::now).unwrap_or_default();
        if let Some(taken) = &*lock(&self.taken) {
            // Sorting keeps the order of the others.
            known.sort_by_key(|password| !same(password, taken));
        }
        known
    }

    /// Writes the password of the replication role for libpq.
    pub(super) fn write_passfile(&self) -> Result<()> {
        if let (Some(path), Some(password)) = (&self.own.passfile, self.passwords_to_try().first()) {
            let password = password.expose_secret().replace('\\', "\\\\").replace(':', "\\:");
            self.files.write(path, &format!("*:*:*:{ROLE}:{password}\n"), 0o600)?;
        }
        Ok(())
    }
}

impl Postgres {
    /// Connects to a primary's, with the password that it takes.
    pub(super) async fn connect_to(&self, primary: &Primary) -> Result<Client> {
        let mut refused = None;
        for password in self.home.passwords_to_try() {
            match session::connect_primary(primary, Some(password.expose_secret())).await {
                Ok(client) => {
                    *lock(&self.home.taken) = Some(password);
                    return Ok(client);
                }
                Err(error) if session::is_wrong_password(&error) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) => Err(error),
            None => session::connect_primary(primary, None).await,
        }
    }

    /// Sets the password of the replication role where it has none. Otherwise it has the one that standbys use now, and
    /// another can wait until the promotion is over.
    pub(super) async fn set_first_password(&self, session: &Session) -> Result<()> {
        if self.home.passwords.is_none() {
            return Ok(());
        }
        let sql = format!("SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = '{ROLE}'");
        let row = one(&session.client, PATIENCE, "look at the replication role", &sql).await?;
        if cell(&row, 0)? { self.set_password(session).await } else { Ok(()) }
    }

    /// Sets the password of the replication role, which is there.
    async fn set_password(&self, session: &Session) -> Result<()> {
        let Some(password) = self.home.own_password() else { return Ok(()) };
        let pid = self.home.pid();
        // Hashed here, so that it is in no log.
        let hash = postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes());
        let sql = format!("ALTER ROLE {ROLE} PASSWORD '{hash}'");
        within(CHANGE, "set the password of the replication role", session.client.batch_execute(&sql)).await?;
        *lock(&self.home.set) = pid.map(|pid| (pid, password));
        Ok(())
    }

    /// Keeps the password of the replication role what it is to be, for ever; returns where there is none.
    pub async fn keep_password(self: Arc<Self>) {
        if self.home.passwords.is_none() {
            return;
        }
        let mut told = String::new();
        loop {
            tokio::time::sleep(LOOK).await;
            let done = self.look_at_password().await;
            let error = done.err().filter(session::is_wrong_password).map(|error| error.chain()).unwrap_or_default();
            if !error.is_empty() && error != told {
                tracing::warn!(error, "the primary takes none of the passwords that this node knows");
            }
            told = error;
        }
    }

    async fn look_at_password(&self) -> Result<()> {
        let (role, streaming) = {
            let status = self.status();
            let status = status.borrow();
            (status.role, status.streaming)
        };
        match self.home.directions() {
            Directions::Leads(_) if role == DatabaseRole::Primary => {
                let set = lock(&self.home.set).clone();
                let wanted = self.home.own_password();
                let is_set = set
                    .zip(wanted)
                    .is_some_and(|((pid, set), wanted)| Some(pid) == self.home.pid() && same(&set, &wanted));
                if is_set { Ok(()) } else { self.set_password(&*self.session().await?).await }
            }
            Directions::Follows(primary) if role == DatabaseRole::Standby && !streaming => {
                self.connect_to(&primary).await?;
                self.give_password().await
            }
            _ => Ok(()),
        }
    }

    /// Gives libpq the password that was found, unless something else is under way, which then does so.
    pub(super) async fn give_password(&self) -> Result<()> {
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return Ok(()) };
        self.blocking(&Arc::new(turn), |home| home.write_passfile()).await
    }
}
