//! Making the database follow the primary: it streams at once, or is rewound, or cloned.

use std::sync::Arc;

use super::{STRAYED, Supervisor, SupervisorError, chain};
use crate::model::{Lsn, WalHistory};
use crate::protocol::database::{Database, DatabaseRole, Primary};
use crate::protocol::repair::{Compared, Follower, Next, Tried, Why, after_failure, compared, next};
use crate::raft::store::{Repair, StoreError};

impl Supervisor {
    /// Follows `primary`, whose WAL history is `history`. A repair is noted durably before the first byte changes.
    pub(super) async fn follow(&mut self, primary: &Primary, history: &WalHistory) -> Result<(), SupervisorError> {
        let Some(database) = self.database() else { return Ok(()) };
        let status = database.status().borrow().clone();
        let known = Follower {
            role: status.role,
            repair: self.record.borrow().repair,
            follows: status.follows == Some((primary.node, primary.term)),
            lacks_wal: status.lacks_wal,
            astray: self.is_astray(&database) && self.overridden_by().is_none(),
        };
        let repair = match next(&known) {
            Next::Wait => return Ok(()),
            Next::Compare => match self.compare(&database, status.role, primary, history).await? {
                Some(repair) => repair,
                None => return Ok(()),
            },
            Next::Repair(repair, why) => {
                match why {
                    Some(Why::LacksWal) => {
                        tracing::warn!(primary = %primary.node, "the primary no longer has the WAL that this standby needs");
                    }
                    Some(Why::Strayed) => tracing::warn!("{STRAYED}"),
                    Some(Why::Absent) | None => {}
                }
                self.note_repair(repair)?;
                self.fenced = None;
                repair
            }
        };
        if repair == Repair::Rewind {
            match self.rewind(&database, primary, history).await {
                Ok(()) => return self.rebuilt(history),
                Err(SupervisorError::Database(error)) => match after_failure(Tried::Rewind, &error) {
                    Some(instead) => {
                        tracing::warn!(error = chain(&error), "the rewind cannot work: a {instead} is needed");
                        self.note_repair(instead)?;
                    }
                    None => return Err(error.into()),
                },
                Err(error) => return Err(error),
            }
        }
        tracing::info!(primary = %primary.node, term = %primary.term, "clones");
        database.copy_from(primary.clone()).await?;
        self.rebuilt(history)
    }

    /// Fences the database, compares its WAL with the primary's history, and has it stream if it can. Tells the repair that
    /// it needs if it cannot.
    async fn compare(
        &mut self,
        database: &Arc<dyn Database>,
        role: DatabaseRole,
        primary: &Primary,
        history: &WalHistory,
    ) -> Result<Option<Repair>, SupervisorError> {
        let end = self.fenced_for(primary.term, database, role).await?;
        let parted = self.record.borrow().history.is_prefix_of(end, history);
        match compared(parted, self.note_stray(database)?) {
            Compared::Stream => self.stream(database, primary, history, end).await,
            Compared::StreamDiverged => {
                database.follow(primary.clone()).await?;
                Ok(None)
            }
            Compared::Rewind(fork) => {
                tracing::warn!(primary = %primary.node, %end, %fork, "the database has diverged: it is rewound");
                self.note_repair(Repair::Rewind)?;
                Ok(Some(Repair::Rewind))
            }
            Compared::RewindStrayed => Ok(Some(Repair::Rewind)),
        }
    }

    /// Has the database, whose WAL ends at `end` and is a prefix of the primary's, stream. Tells the repair that it needs if
    /// it turns out that it cannot.
    async fn stream(
        &mut self,
        database: &Arc<dyn Database>,
        primary: &Primary,
        history: &WalHistory,
        end: Lsn,
    ) -> Result<Option<Repair>, SupervisorError> {
        let before = self.record.borrow().history.clone();
        self.keep(|record| record.history = before.following(end, history))?;
        tracing::info!(primary = %primary.node, term = %primary.term, from = %end, "follows");
        let Err(error) = database.follow(primary.clone()).await else { return Ok(None) };
        let Some(repair) = after_failure(Tried::Stream, &error) else { return Err(error.into()) };
        tracing::warn!(error = chain(&error), "the database cannot stream as it is: a {repair} is needed");
        self.keep(|record| (record.history, record.repair) = (before, Some(repair)))?;
        Ok(Some(repair))
    }

    /// Rewinds the database to where it leaves the primary's history, and waits until it streams.
    async fn rewind(
        &mut self,
        database: &Arc<dyn Database>,
        primary: &Primary,
        history: &WalHistory,
    ) -> Result<(), SupervisorError> {
        // If the two no longer part, all of it is this primary's, too.
        let fork = self.record.borrow().history.is_prefix_of(Lsn(u64::MAX), history).err();
        database.rewind(primary.clone(), fork.unwrap_or(Lsn(u64::MAX))).await?;
        // If this primary is lost, its history tells where the database leaves the next one's.
        self.keep(|record| record.history = history.clone())?;
        Ok(database.settle(primary.clone()).await?)
    }

    fn note_repair(&mut self, repair: Repair) -> Result<(), StoreError> {
        self.keep(|record| record.repair = Some(repair))
    }

    /// The database is a copy of a primary with this history.
    fn rebuilt(&mut self, history: &WalHistory) -> Result<(), SupervisorError> {
        Ok(self.keep(|record| {
            record.history = history.clone();
            record.repair = None;
        })?)
    }
}
