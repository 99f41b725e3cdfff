//! The connections of the rounds: one a database, kept, since a new one costs the server more than what is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_postgres::Client;

use super::{Error, cell};
use crate::database::Postgres;

/// The database that every server has.
pub(super) const MAIN: &str = "postgres";

/// Connections to the databases of this node.
pub(super) struct Sessions {
    postgres: Arc<Postgres>,
    open: BTreeMap<String, Session>,
}

/// A connection to a database.
pub(super) struct Session {
    pub(super) client: Client,
    /// Major version of the server.
    pub(super) version: u32,
}

const VERSION: &str = "SELECT current_setting('server_version_num')::int / 10000";

impl Sessions {
    pub(super) fn new(postgres: Arc<Postgres>) -> Self {
        Self { postgres, open: BTreeMap::new() }
    }

    /// The connection to a database.
    pub(super) async fn to(&mut self, database: &str) -> Result<&mut Session, Error> {
        if self.open.get(database).is_none_or(|session| session.client.is_closed()) {
            let client = self.postgres.connect_to_look(database).await;
            let client = client.map_err(|source| Error::Connect { database: database.into(), source })?;
            let version = async { cell::<i32>(&client.query_one(VERSION, &[]).await?, 0) };
            let version = version.await.map_err(ask("tell the version", database))?;
            self.open.insert(database.into(), Session { client, version: u32::try_from(version).unwrap_or_default() });
        }
        self.open.get_mut(database).ok_or(Error::Stopping)
    }

    /// Lets go of all connections but these.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<String>) {
        self.open.retain(|name, _| wanted.contains(name) || name == MAIN);
    }

    /// Lets go of one that did not answer as it should.
    pub(super) fn drop(&mut self, database: &str) {
        self.open.remove(database);
    }
}

/// What an error of PostgreSQL's means.
pub(super) fn ask(attempted: &'static str, database: &str) -> impl FnOnce(tokio_postgres::Error) -> Error {
    let database = database.to_owned();
    move |source| Error::Ask { attempted, database, source }
}
