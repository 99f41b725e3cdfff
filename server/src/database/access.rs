//! The user's rules on who may connect: taking over what has changed, and not what PostgreSQL refuses.
//!
//! A file with an error is not loaded: what was loaded before stays in force, and a postmaster that is to start does not.
//! So it is replaced by the last rules that had none, until the user has changed it again.

use std::sync::Arc;

use tokio_postgres::Client;

use super::error::Result;
use super::session::{PATIENCE, cell, one};
use super::{Postgres, Turn};

/// A line for connections that are not to be had, which PostgreSQL warns of, is no error.
const ERROR: &str = "
    SELECT min(format('line %s: %s', line_number, error))
      FROM pg_hba_file_rules
     WHERE error IS NOT NULL AND error NOT LIKE '%record cannot match because%'";

/// Rules that PostgreSQL does not take.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: String,
    /// Whether those are kept that it took last: they are written next.
    pub(super) replaceable: bool,
}

impl Postgres {
    /// Asks PostgreSQL about the rules that were written last.
    pub(super) async fn judge_access(&self, turn: &Turn, client: &Client) -> Result<Option<Refused>> {
        let row = one(client, PATIENCE, "check who may connect", ERROR).await?;
        match cell::<Option<String>>(&row, 0)? {
            None => self.blocking(turn, |home| home.keep_rules()).await.map(|()| None),
            Some(error) => {
                let replaceable = self.blocking(turn, |home| home.refuse_rules()).await?;
                Ok(Some(Refused { error, replaceable }))
            }
        }
    }

    /// Takes over what the user changed, and tells whether that could be done now.
    pub(super) async fn reload_access(&self) -> bool {
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
        if self.blocking(turn, |home| home.write_access(None)).await? {
            self.reload().await?;
        }
        // It is starting.
        let Ok(session) = self.session().await else { return Ok(false) };
        if let Some(Refused { error, replaceable }) = self.judge_access(turn, &session.client).await? {
            tracing::warn!(error, "pg_hba.conf has an error: the rules of before stay in force");
            if replaceable && self.blocking(turn, |home| home.write_access(None)).await? {
                self.reload().await?;
            }
        }
        Ok(true)
    }
}
