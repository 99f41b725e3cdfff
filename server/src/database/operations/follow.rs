//! Following a primary.

use std::time::{Duration, Instant};

use qluster_consensus::protocol::database::Primary;

use crate::database::Postgres;
use crate::database::error::{Error, Result};
use crate::database::sessions::client::QUERY_TIMEOUT;
use crate::formats::directions::Directions;
use crate::formats::hba::Access;

/// How long a follow waits to learn whether the primary's database is the same one.
const IDENTITY_TIMEOUT: Duration = Duration::from_millis(500);

/// How often the log of a standby that does not stream yet is searched for a reason.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// How often a started standby is asked whether it streams.
const STREAM_PERIOD: Duration = Duration::from_millis(20);

impl Postgres {
    pub(crate) async fn do_follow(&self, primary: Primary) -> Result<()> {
        let turn = self.turn().await;
        if self.data_dir.postmaster.pid().is_none() {
            return Err(Error::Unfit("it does not run".into()));
        }
        if self.may_be_primary(QUERY_TIMEOUT).await {
            return Err(Error::Unfit("it is, or may be, a primary: it must be fenced first".into()));
        }
        // If it does not answer yet, its timeline is not known.
        if let Ok(report) = self.sessions.report().await
            && let Some(timeline) = report.timeline
            && timeline > primary.timeline
        {
            let Primary { node, timeline: theirs, .. } = primary;
            return Err(Error::Hopeless(format!("its WAL is on timeline {timeline}, that of node {node} on {theirs}")));
        }
        self.direct(&turn, Directions::Follows(primary.clone()), Some(Access::Open)).await?;
        self.restart_hold.release();
        // The WAL receiver refuses another database, too, each time that it connects. But it only logs that.
        match tokio::time::timeout(IDENTITY_TIMEOUT, self.check_identity(&primary)).await {
            Ok(Err(error @ Error::Unfit(_))) => {
                self.direct(&turn, Directions::Fenced, Some(Access::Open)).await?;
                return Err(error);
            }
            // It may take another password than the primary before.
            Ok(Ok(_)) => self.blocking(&turn, |data_dir| data_dir.passwords.write_passfile()).await?,
            _ => {}
        }
        self.observe().await;
        Ok(())
    }

    /// Waits until a started standby is consistent and streams from `primary`.
    pub(super) async fn streams_from(&self, primary: &Primary) -> Result<()> {
        let mut searched = Instant::now();
        loop {
            if self.data_dir.postmaster.pid().is_none() {
                return Err(Error::Ended { log: self.data_dir.log.tail() });
            }
            if let Ok(report) = self.sessions.report().await
                && report.streams_with.is_some_and(|conninfo| self.is_receiver_of(&conninfo, primary))
            {
                return Ok(());
            }
            if searched.elapsed() > LOG_PERIOD {
                searched = Instant::now();
                let log = self.data_dir.log.tail();
                if log.contains("has already been removed") {
                    let node = primary.node;
                    return Err(Error::Hopeless(format!("node {node} no longer has the WAL that this needs: {log}")));
                }
            }
            tokio::time::sleep(STREAM_PERIOD).await;
        }
    }
}
