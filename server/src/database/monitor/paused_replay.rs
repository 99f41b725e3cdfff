//! A standby whose replay PostgreSQL has paused, since its primary has larger settings than the standby was started with.
//!
//! From PostgreSQL 14 on, such a standby goes on streaming and replays nothing more, for ever: it gets larger settings only
//! by a restart (PostgreSQL's documentation, "Hot Standby", "Administrator's Overview"). Nothing else shows that it is unfit,
//! and it ends by itself when its replay is resumed, as for a promotion.

use std::sync::Arc;

use crate::database::Postgres;
use crate::database::error::Result;
use crate::database::sessions::client::{QUERY_TIMEOUT, cell, one, within};
use crate::formats::control::ControlData;

const PAUSED: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END";

/// The values that the running PostgreSQL was started with.
const RUNS_WITH: &str = "SELECT name, setting::bigint FROM pg_settings WHERE name = ANY($1)";

impl Postgres {
    /// Stops such a standby. The monitor starts it again like any that ended, with its primary's values.
    pub(super) async fn check_replay(&self) {
        match self.restart_if_paused().await {
            Ok(()) => {}
            Err(error) => tracing::debug!(error = error.chain(), "it is not known whether the replay is paused"),
        }
    }

    async fn restart_if_paused(&self) -> Result<()> {
        let session = self.sessions.session().await?;
        let row = one(&session.client, QUERY_TIMEOUT, "tell whether its replay is paused", PAUSED).await?;
        if !cell::<bool>(&row, 0)? {
            return Ok(());
        }
        // The operation under way restarts it, or is about to promote it.
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return Ok(()) };
        let turn = Arc::new(turn);
        let ControlData { floors, .. } = self.blocking(&turn, |data_dir| data_dir.control.read()).await?;
        let names: Vec<&str> = floors.iter().map(|(name, _)| *name).collect();
        let rows = within(QUERY_TIMEOUT, "tell its settings", session.client.query(RUNS_WITH, &[&names])).await?;
        let mut lacks = Vec::new();
        for row in rows {
            let (name, has): (String, i64) = (cell(&row, 0)?, cell(&row, 1)?);
            let needs = floors.iter().find(|(floor, _)| *floor == name).map_or(0, |(_, needs)| *needs);
            if u64::try_from(has).is_ok_and(|has| has < needs) {
                lacks.push(format!("{name} is {has}, and needs {needs}"));
            }
        }
        if lacks.is_empty() {
            return Ok(());
        }
        let lacks = lacks.join(", ");
        tracing::warn!(
            lacks,
            "the primary has larger settings than this standby, whose replay is paused: it is restarted"
        );
        self.stop_fast().await
    }
}
