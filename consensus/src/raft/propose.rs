//! Writing a command to the cluster's log, and finding out what became of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::impls::ProgressResponder;
use uuid::Uuid;

use crate::model::Term;
use crate::protocol::command::{Change, Command, Outcome};
use crate::protocol::fate::{Fate, fate};
use crate::raft::core::Core;
use crate::raft::types::Raft;

/// After this time, a write is tried again that the leader could not take yet.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Who wants a change, and why.
#[derive(Clone, Debug)]
pub(crate) struct Reason {
    pub(crate) actor: String,
    pub(crate) cause: String,
}

impl Reason {
    pub(crate) fn new(actor: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { actor: actor.into(), cause: cause.into() }
    }

    /// A change that this node wants by itself.
    pub(crate) fn own(core: &Core, cause: impl Into<String>) -> Self {
        Self::new(format!("node {}", core.id()), cause)
    }
}

/// Why a command has no outcome, or no known one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    #[error("this node does not lead")]
    NotLeader,
    #[error("leadership moved on before the change was committed; nothing was applied")]
    Superseded,
    #[error("the change was not confirmed within {0:?}; it may still take effect")]
    Unconfirmed(Duration),
}

/// Writes a change to the log and waits until it is applied here, for at most `patience`.
///
/// If the write fails, its [`fate`] is looked up in the state.
///
/// # Errors
///
/// If this node does not lead, if another took over before the change was committed, or if the change was not confirmed
/// in time. Only in the last case may it still take effect.
pub(crate) async fn propose(
    core: &Core,
    change: Change,
    reason: Reason,
    patience: Duration,
) -> Result<Outcome, ProposeError> {
    let status = core.raft_status();
    if status.leader != Some(core.id()) {
        return Err(ProposeError::NotLeader);
    }
    let Reason { actor, cause } = reason;
    let command = Command { id: core.random().uuid(), time: core.clock().time_of_day(), actor, cause, change };
    let id = command.id;
    // Whether an attempt may have reached the log.
    let written = AtomicBool::new(false);
    let tries = async {
        loop {
            let before = written.swap(true, Ordering::Relaxed);
            match write(&core.ready().await, status.term, command.clone()).await {
                Ok(outcome) => return Ok(outcome),
                Err(lost) if core.resumes(status.term).await => {
                    // Either the core was rebuilt during the write, or it leads again and waits for a majority to
                    // confirm that. The same command is written again. It is applied once, however often it is logged.
                    tracing::debug!(?lost, "a write failed and is tried again");
                    written.store(before || lost == Lost::Somewhere, Ordering::Relaxed);
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                Err(lost) => {
                    tracing::debug!(?lost, "a write failed, and its fate is looked up in the state");
                    return await_fate(core, id, status.term).await;
                }
            }
        }
    };
    let begun = std::time::Instant::now();
    match tokio::time::timeout(patience, tries).await {
        Ok(outcome) => {
            if outcome.is_ok() {
                core.observers().commits.took(begun.elapsed());
            }
            outcome
        }
        Err(_) if written.load(Ordering::Relaxed) => Err(ProposeError::Unconfirmed(patience)),
        Err(_) => Err(ProposeError::NotLeader),
    }
}

/// What is known of a write that was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// The leader did not take it; or it was in the log, and is gone with the leader's term.
    Rejected,
    /// The core ended during the write. It may be in the log.
    Somewhere,
}

/// Writes a command as the leader of `term`, and of no other term: only then can its fate be found out.
async fn write(raft: &Raft, term: Term, command: Command) -> Result<Outcome, Lost> {
    let leader = raft.as_leader().map_err(|_| Lost::Rejected)?;
    let id = leader.to_committed_leader_id();
    if id.term != term.0 {
        return Err(Lost::Rejected);
    }
    let (responder, completed) = ProgressResponder::complete_only();
    raft.write(command).with_leader(id).responder(responder).await.map_err(|_| Lost::Somewhere)?;
    match completed.await {
        Ok(Ok(response)) => Ok(response.data),
        Ok(Err(_)) => Err(Lost::Rejected),
        Err(_) => Err(Lost::Somewhere),
    }
}

/// Waits until it is certain what became of a command that was written in `term`.
async fn await_fate(core: &Core, id: Uuid, term: Term) -> Result<Outcome, ProposeError> {
    let mut progress = core.state_machine().progress();
    loop {
        let applied = progress.borrow_and_update().term;
        match core.state_machine().read(|known| fate(&known.state, id, applied, term)) {
            Fate::Applied(outcome) => return Ok(outcome),
            Fate::Superseded => return Err(ProposeError::Superseded),
            Fate::Unknown => {}
        }
        if progress.changed().await.is_err() {
            return Err(ProposeError::Superseded);
        }
    }
}
