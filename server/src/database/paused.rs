//! A standby whose replay PostgreSQL has paused, since its primary allows more than it was started with.
//!
//! From PostgreSQL 14 on such a standby streams on and shows nothing new, for ever: it takes larger settings only when it
//! is started (documentation of hot standby, "Administrator's Overview"). It is unfit by nothing else, and ends by itself
//! when its replay is resumed, as for a promotion.

use std::sync::Arc;

use super::Postgres;
use super::control::ControlData;
use super::error::Result;
use super::home::Home;
use super::session::{PATIENCE, cell, one, within};

const PAUSED: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END";

/// What a PostgreSQL that runs was started with.
const RUNS_WITH: &str = "SELECT name, setting::bigint FROM pg_settings WHERE name = ANY($1)";

impl Postgres {
    /// Stops such a standby. It is started again as any that ended, with what its primary has.
    pub(super) async fn look_at_replay(&self) {
        match self.restart_if_paused().await {
            Ok(()) => {}
            Err(error) => tracing::debug!(error = error.chain(), "whether the replay is paused is not known"),
        }
    }

    async fn restart_if_paused(&self) -> Result<()> {
        let session = self.session().await?;
        let row = one(&session.client, PATIENCE, "tell whether its replay is paused", PAUSED).await?;
        if !cell::<bool>(&row, 0)? {
            return Ok(());
        }
        // What is under way starts it anew, or is about to promote it.
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return Ok(()) };
        let turn = Arc::new(turn);
        let ControlData { floors, .. } = self.blocking(&turn, Home::control).await?;
        let names: Vec<&str> = floors.iter().map(|(name, _)| *name).collect();
        let rows = within(PATIENCE, "tell its settings", session.client.query(RUNS_WITH, &[&names])).await?;
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
        tracing::warn!(lacks, "the primary allows more than this standby, whose replay is paused: it is started anew");
        self.stop_fast().await
    }
}
