//! Connecting to a primary.

use qluster_consensus::protocol::database::Primary;
use secrecy::ExposeSecret;
use tokio_postgres::Client;

use super::client::{QUERY_TIMEOUT, cell, connect_primary, is_wrong_password, one};
use crate::database::Postgres;
use crate::database::error::{Error, Result};

impl Postgres {
    /// Connects to a primary as the replication role, with the password that the primary takes.
    pub(crate) async fn connect_to(&self, primary: &Primary) -> Result<Client> {
        let passwords = &self.data_dir.passwords;
        let mut refused = None;
        for password in passwords.to_try() {
            match connect_primary(primary, Some(password.expose_secret())).await {
                Ok(client) => {
                    passwords.was_taken(password);
                    return Ok(client);
                }
                Err(error) if is_wrong_password(&error) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) => Err(error),
            None => connect_primary(primary, None).await,
        }
    }

    /// Connects to a primary, and refuses one whose database is not a copy of the same database.
    pub(crate) async fn check_identity(&self, primary: &Primary) -> Result<Client> {
        let own = self.system_identifier().await?;
        let client = self.connect_to(primary).await?;
        let sql = "SELECT system_identifier::text FROM pg_control_system()";
        let row = one(&client, QUERY_TIMEOUT, "identify the primary", sql).await?;
        let theirs: String = cell(&row, 0)?;
        if own == theirs {
            return Ok(client);
        }
        let node = primary.node;
        Err(Error::Unfit(format!("the database of node {node} is another one: {theirs}, this one is {own}")))
    }
}
