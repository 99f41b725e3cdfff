//! What a database says about its state.

use std::time::Duration;

use qluster_consensus::model::Lsn;
use tokio_postgres::{Client, Statement};

use super::client::{QUERY_TIMEOUT, cell, lsn, one, within};
use crate::database::error::Result;
use crate::formats::wal::timeline_of_file;

/// The state of a database.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Whether it is a standby.
    pub(crate) in_recovery: bool,
    /// The end of its WAL: received or replayed by a standby, written by a primary.
    pub(crate) lsn: Option<Lsn>,
    /// Up to where a standby has replayed.
    pub(crate) replayed: Option<Lsn>,
    pub(crate) timeline: Option<u32>,
    /// The connection string of its WAL receiver. None unless the receiver streams.
    pub(crate) streams_with: Option<String>,
}

/// The state of a standby's recovery.
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    pub(crate) in_recovery: bool,
    pub(crate) replayed: Option<Lsn>,
    /// Its `primary_conninfo`. Empty if it follows nobody.
    pub(crate) conninfo: String,
    /// How many WAL receivers there are.
    pub(crate) receivers: i64,
    /// The startup process, which replays.
    pub(crate) startup: Option<i32>,
    /// The event that the startup process waits for.
    pub(crate) wait: Option<String>,
    /// Whether replay is paused.
    pub(crate) pause: bool,
    /// A WAL receiver at the end of a timeline that waits for its next instruction.
    pub(crate) idle_receiver: Option<i32>,
}

const REPORT: &str = "
    SELECT r.recovery,
           (CASE WHEN r.recovery THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                 ELSE pg_current_wal_lsn() END)::text,
           pg_last_wal_replay_lsn()::text,
           CASE WHEN r.recovery
                THEN greatest(c.timeline_id, m.min_recovery_end_timeline, w.received_tli)::text
                ELSE pg_walfile_name(pg_current_wal_lsn()) END,
           CASE WHEN w.status = 'streaming' THEN w.conninfo END
      FROM (SELECT pg_is_in_recovery() AS recovery) r, pg_control_checkpoint() c, pg_control_recovery() m
      LEFT JOIN pg_stat_get_wal_receiver() w ON true";

const RECOVERY: &str = "
    SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text,
           current_setting('primary_conninfo'),
           count(*) FILTER (WHERE backend_type = 'walreceiver'),
           max(pid) FILTER (WHERE backend_type = 'startup'),
           max(wait_event) FILTER (WHERE backend_type = 'startup'),
           CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
           max(pid) FILTER (WHERE backend_type = 'walreceiver' AND wait_event = 'WalReceiverWaitStart')
      FROM pg_stat_activity";

/// The kept connection of the daemon to its own database.
pub(crate) struct Session {
    pub(crate) client: Client,
    /// Prepared, since it runs several times a second.
    report: Statement,
}

impl Session {
    pub(crate) async fn new(client: Client) -> Result<Self> {
        let report = within(QUERY_TIMEOUT, "prepare a statement", client.prepare(REPORT)).await?;
        Ok(Self { client, report })
    }

    /// The state of the database now.
    pub(crate) async fn report(&self, timeout: Duration) -> Result<Report> {
        let row = within(timeout, "report its state", self.client.query_one(&self.report, &[])).await?;
        let in_recovery: bool = cell(&row, 0)?;
        let timeline: Option<String> = cell(&row, 3)?;
        let timeline = match in_recovery {
            true => timeline.and_then(|timeline| timeline.parse().ok()),
            false => timeline.as_deref().and_then(timeline_of_file),
        };
        Ok(Report { in_recovery, lsn: lsn(&row, 1)?, replayed: lsn(&row, 2)?, timeline, streams_with: cell(&row, 4)? })
    }
}

/// The state of a standby's recovery now.
pub(crate) async fn recovery(client: &Client) -> Result<Recovery> {
    let row = one(client, QUERY_TIMEOUT, "report its recovery", RECOVERY).await?;
    Ok(Recovery {
        in_recovery: cell(&row, 0)?,
        replayed: lsn(&row, 1)?,
        conninfo: cell::<Option<String>>(&row, 2)?.unwrap_or_default(),
        receivers: cell(&row, 3)?,
        startup: cell(&row, 4)?,
        wait: cell(&row, 5)?,
        pause: cell(&row, 6)?,
        idle_receiver: cell(&row, 7)?,
    })
}
