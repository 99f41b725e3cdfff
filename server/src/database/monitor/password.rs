//! Keeping the password of the replication role up to date while standbys stream.
//!
//! PostgreSQL has one password for a role, and libpq tries one. While the cluster's secret is being replaced, nodes know
//! different passwords. So a primary sets the first that it knows, and a standby finds out which one its primary takes. An
//! established connection is not affected.

use std::sync::Arc;
use std::time::Duration;

use qluster_consensus::protocol::database::DatabaseRole;

use crate::database::Postgres;
use crate::database::error::Result;
use crate::database::sessions::client::is_wrong_password;
use crate::formats::directions::Directions;

/// How often the password is checked.
const PASSWORD_PERIOD: Duration = Duration::from_secs(1);

impl Postgres {
    /// Keeps the password of the replication role up to date, for ever. Returns at once if standbys need no password.
    pub async fn keep_password(self: Arc<Self>) {
        if !self.data_dir.passwords.is_needed() {
            return;
        }
        let mut told = String::new();
        loop {
            tokio::time::sleep(PASSWORD_PERIOD).await;
            let done = self.check_password().await;
            let error = done.err().filter(is_wrong_password).map(|error| error.chain()).unwrap_or_default();
            if !error.is_empty() && error != told {
                tracing::warn!(error, "the primary takes none of the passwords that this node knows");
            }
            told = error;
        }
    }

    async fn check_password(&self) -> Result<()> {
        let status = self.status.get();
        let (role, streaming) = (status.role, status.streaming);
        match self.data_dir.settings.directions() {
            Directions::Leads(_) if role == DatabaseRole::Primary => {
                let is_set = self.data_dir.passwords.is_set(self.data_dir.postmaster.pid());
                if is_set { Ok(()) } else { self.set_password(&*self.sessions.session().await?).await }
            }
            Directions::Follows(primary) if role == DatabaseRole::Standby && !streaming => {
                self.connect_to(&primary).await?;
                self.give_password().await
            }
            _ => Ok(()),
        }
    }

    /// Writes the password that was found for libpq. If an operation is under way, that does it.
    async fn give_password(&self) -> Result<()> {
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return Ok(()) };
        self.blocking(&Arc::new(turn), |data_dir| data_dir.passwords.write_passfile()).await
    }
}
