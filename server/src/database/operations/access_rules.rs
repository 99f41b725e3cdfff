//! The user's rules on who may connect: taking over changes, but not rules that PostgreSQL refuses.
//!
//! PostgreSQL does not load a file with an error: the rules that it loaded before stay in force, and a postmaster would not
//! start. So the file is replaced by the last rules without an error, until the user has changed it again.

use std::sync::Arc;

use tokio_postgres::Client;

use crate::database::error::Result;
use crate::database::sessions::client::{QUERY_TIMEOUT, cell, one};
use crate::database::{Postgres, Turn};

/// The first error in the rules. A line for connections that this server does not offer is only a warning.
const FIRST_ERROR: &str = "
    SELECT min(format('line %s: %s', line_number, error))
      FROM pg_hba_file_rules
     WHERE error IS NOT NULL AND error NOT LIKE '%record cannot match because%'";

/// Rules that PostgreSQL refuses.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The first error in them.
    pub(crate) error: String,
    /// Whether there are earlier rules that it took: they are written next.
    pub(crate) replaceable: bool,
}

impl Postgres {
    /// Asks PostgreSQL about the rules that were written last. None if it takes them.
    pub(crate) async fn judge_access(&self, turn: &Turn, client: &Client) -> Result<Option<Refused>> {
        let row = one(client, QUERY_TIMEOUT, "check who may connect", FIRST_ERROR).await?;
        match cell::<Option<String>>(&row, 0)? {
            None => self.blocking(turn, |data_dir| data_dir.access.keep_rules()).await.map(|()| None),
            Some(error) => {
                let replaceable = self.blocking(turn, |data_dir| data_dir.access.refuse_rules()).await?;
                Ok(Some(Refused { error, replaceable }))
            }
        }
    }

    /// Takes over the user's changes. Returns false if that has to be tried again.
    pub(crate) async fn reload_access(&self) -> bool {
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return false };
        match self.take_over_access(&Arc::new(turn)).await {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(error = error.chain(), "cannot take over pg_hba.conf");
                true
            }
        }
    }

    async fn take_over_access(&self, turn: &Turn) -> Result<bool> {
        if self.blocking(turn, |data_dir| data_dir.access.write(None)).await? {
            self.reload().await?;
        }
        // If there is no session, it is starting.
        let Ok(session) = self.sessions.session().await else { return Ok(false) };
        if let Some(Refused { error, replaceable }) = self.judge_access(turn, &session.client).await? {
            tracing::warn!(error, "pg_hba.conf has an error: the earlier rules stay in force");
            if replaceable && self.blocking(turn, |data_dir| data_dir.access.write(None)).await? {
                self.reload().await?;
            }
        }
        Ok(true)
    }
}
