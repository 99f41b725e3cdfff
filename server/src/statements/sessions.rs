//! The connections of the rounds: one for each database. They are kept, since a new connection costs the server more
//! than the queries over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_postgres::Client;

use super::{Error, Server, cell};

/// A database that every server has.
pub(super) const MAIN: &str = "postgres";

/// The open connections to the databases of this node.
pub(super) struct Sessions {
    server: Arc<dyn Server>,
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
    pub(super) fn new(server: Arc<dyn Server>) -> Self {
        Self { server, open: BTreeMap::new() }
    }

    /// The connection to a database; a new one if there is none.
    pub(super) async fn to(&mut self, database: &str) -> Result<&mut Session, Error> {
        if self.open.get(database).is_none_or(|session| session.client.is_closed()) {
            let client = self.server.connect(database).await;
            let client = client.map_err(|source| Error::Connect { database: database.into(), source })?;
            let version = async { cell::<i32>(&client.query_one(VERSION, &[]).await?, 0) };
            let version = version.await.map_err(ask("read the version", database))?;
            self.open.insert(database.into(), Session { client, version: u32::try_from(version).unwrap_or_default() });
        }
        self.open.get_mut(database).ok_or_else(|| Error::Closed(database.into()))
    }

    /// Closes all connections but those to these databases.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<String>) {
        self.open.retain(|name, _| wanted.contains(name) || name == MAIN);
    }

    /// Closes the connection to a database that did not answer as it should.
    pub(super) fn drop(&mut self, database: &str) {
        self.open.remove(database);
    }
}

/// Names what was attempted when PostgreSQL answered with an error.
pub(super) fn ask(attempted: &'static str, database: &str) -> impl FnOnce(tokio_postgres::Error) -> Error {
    let database = database.to_owned();
    move |source| Error::Ask { attempted, database, source }
}
