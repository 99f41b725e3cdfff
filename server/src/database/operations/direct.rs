//! Writing the directions of a running PostgreSQL, and making sure that it has loaded them.
//!
//! That a file was written and the postmaster signalled does not mean that the file was read. Each text of `qluster.conf`
//! has its own stamp, and only a connection that was made later shows what the postmaster has loaded.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::CHECK_PERIOD;
use crate::database::error::{Error, Result};
use crate::database::sessions::client::{QUERY_TIMEOUT, To, cell, is_crowded, one};
use crate::database::sessions::settings::check_files;
use crate::database::{Postgres, Turn};
use crate::formats::directions::Directions;
use crate::formats::hba::Access;

/// How long the postmaster may take to load its configuration.
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A postmaster that is not busy has loaded its configuration by then.
const USUAL_LOAD_TIME: Duration = Duration::from_millis(250);

impl Postgres {
    /// Changes the directions of the running PostgreSQL, and who may connect. Returns the stamp of this configuration. Does
    /// not wait until PostgreSQL has loaded it.
    pub(crate) async fn direct(&self, turn: &Turn, directions: Directions, access: Option<Access>) -> Result<String> {
        let written = self.blocking(turn, move |data_dir| {
            // A PostgreSQL that an earlier daemon started may read `postgresql.conf` alone, and the user may have replaced
            // that.
            data_dir.settings.include()?;
            data_dir.access.write(access)?;
            data_dir.write_settings(&directions)
        });
        let stamp = written.await?;
        self.reload().await?;
        Ok(stamp)
    }

    /// Waits until the postmaster has loaded the configuration with this stamp, including who may connect, and has signalled
    /// its children. Returns a connection that was made after that.
    ///
    /// An older session proves nothing: it reads the files itself, perhaps at the signal of an earlier reload. A new session
    /// has the stamp from the postmaster, or from a signal that the postmaster sent after it had loaded the configuration.
    /// That does not yet cover the access files, which are loaded after the children are signalled. But the next session
    /// is forked after all of that, since the postmaster does one thing at a time.
    pub(crate) async fn loaded(&self, stamp: &str) -> Result<Client> {
        let begun = Instant::now();
        while begun.elapsed() < LOAD_TIMEOUT {
            match self.try_loaded(stamp, begun.elapsed() > USUAL_LOAD_TIME).await {
                Ok(Some(client)) => return Ok(client),
                // Clients use all connections, also those for superusers. They will end.
                Err(error) if !is_crowded(&error) => return Err(error),
                Ok(None) | Err(_) => {}
            }
            tokio::time::sleep(CHECK_PERIOD).await;
        }
        Err(Error::Unanswered { attempted: "load its settings", within: begun.elapsed() })
    }

    /// One try. With `late` it also looks for an error that keeps PostgreSQL from loading its settings.
    async fn try_loaded(&self, stamp: &str, late: bool) -> Result<Option<Client>> {
        let client = self.sessions.connect(To::Act).await?;
        let sql = "SELECT current_setting('qluster.stamp', true), current_setting('synchronous_standby_names'),
                          current_setting('primary_conninfo')";
        let row = one(&client, QUERY_TIMEOUT, "tell its settings", sql).await?;
        if cell::<Option<&str>>(&row, 0)? != Some(stamp) {
            if late {
                check_files(&client).await?;
            }
            return Ok(None);
        }
        // A setting that is read after our file overrides ours, although the stamp is right.
        let directions = self.data_dir.settings.directions();
        let conninfo = directions.primary().map_or(String::new(), |primary| self.data_dir.own.conninfo(primary));
        let wanted = [("synchronous_standby_names", directions.sync_names()), ("primary_conninfo", &conninfo)];
        for (index, (name, value)) in wanted.into_iter().enumerate() {
            if cell::<&str>(&row, index + 1)? != value {
                return Err(Error::Unfit(overridden(name)));
            }
        }
        // This makes room for the next connection.
        drop(client);
        self.sessions.connect(To::Act).await.map(Some)
    }
}

/// Says that a setting of ours does not count.
fn overridden(name: &str) -> String {
    format!("something sets {name} after qluster does: take it out of PostgreSQL's settings (ALTER SYSTEM, too)")
}
