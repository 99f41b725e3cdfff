//! Connections to PostgreSQL: the daemon's to its own database, and to a primary's.
//!
//! - `client`: connecting, asking, and what the errors mean. `report`: what a database says about its state.
//! - `settings`: its settings, and whether its files have an error. `reported`: the settings as people read them.
//! - `primary`: connecting to a primary.
//!
//! It uses `data_dir`, `os`, `formats` and `database::error`.

pub(crate) mod client;
mod primary;
pub(crate) mod report;
mod reported;
pub(crate) mod settings;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use tokio_postgres::Client;

use self::client::{QUERY_TIMEOUT, To, connect_own};
use self::report::Report;
pub use self::reported::{DbConfig, DbSetting};
use super::error::{Error, Result};
use crate::formats::ROLE;
use crate::os::lock::lock;

/// The daemon's connections to its own database.
pub(crate) struct Sessions {
    place: Place,
    /// The superusers to try.
    superusers: Vec<String>,
    /// The superuser that worked.
    superuser: OnceLock<String>,
    /// The connection that is kept open.
    kept: Mutex<Option<Arc<report::Session>>>,
}

/// Where the database of this node listens.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) socket_dir: PathBuf,
    pub(crate) port: u16,
}

impl Place {
    /// Connects as this role, by the unix socket.
    pub(crate) async fn connect(&self, user: &str, to: To<'_>) -> Result<Client> {
        connect_own(&self.socket_dir, self.port, user, to).await
    }
}

impl Sessions {
    /// No connection yet.
    pub(crate) fn new(place: Place, superusers: Vec<String>) -> Self {
        Self { place, superusers, superuser: OnceLock::new(), kept: Mutex::default() }
    }

    /// The kept connection. If it was lost, a new one.
    pub(crate) async fn session(&self) -> Result<Arc<report::Session>> {
        let kept = lock(&self.kept).clone();
        if let Some(session) = kept.filter(|session| !session.client.is_closed()) {
            return Ok(session);
        }
        let session = Arc::new(report::Session::new(self.connect(To::Act).await?).await?);
        *lock(&self.kept) = Some(session.clone());
        Ok(session)
    }

    /// Whether there is a kept connection. It may be broken.
    pub(crate) fn is_kept(&self) -> bool {
        lock(&self.kept).is_some()
    }

    /// Drops the kept connection.
    pub(crate) fn drop_kept(&self) {
        *lock(&self.kept) = None;
    }

    /// Asks the database for its state, by the kept connection.
    pub(crate) async fn report(&self) -> Result<Report> {
        self.session().await?.report(QUERY_TIMEOUT).await
    }

    /// A new connection.
    pub(crate) async fn connect(&self, to: To<'_>) -> Result<Client> {
        if let Some(user) = self.superuser.get() {
            return self.place.connect(user, to).await;
        }
        let mut failed = None;
        for user in &self.superusers {
            match self.place.connect(user, to).await {
                Ok(client) => {
                    // Another task may have found it meanwhile.
                    let _ = self.superuser.set(user.clone());
                    return Ok(client);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| Error::Unfit("there is no superuser to connect as".into())))
    }

    /// A new connection to look into a database, as a role with few rights.
    pub(crate) async fn connect_to_look(&self, database: &str) -> Result<Client> {
        self.place.connect(ROLE, To::Look(database)).await
    }

    /// Where to connect, and as which superuser. None if no connection has been made yet.
    pub(crate) fn known(&self) -> Option<(Place, String)> {
        Some((self.place.clone(), self.superuser.get().cloned()?))
    }
}
