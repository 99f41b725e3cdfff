//! Replication slots that keep WAL for the other nodes. Each node has a slot for every other one, so that whoever is
//! promoted has the WAL that the others lack.
//!
//! No standby streams by its slot. Otherwise it would wait for a slot that does not exist yet, or that its last WAL receiver
//! still uses, and try again once a second, in the middle of a failover. The daemons move the slots instead.
//!
//! A primary moves a slot to what the standby has flushed that streams from it. It leaves the slots of nodes that are away
//! where they are. A position that a node only reported may be in WAL that it must rewind: then it needs older WAL.
//!
//! A standby moves a slot to what the node reported, but not beyond where its own last restartpoint begins. If this standby
//! were promoted now, a node that has written more would be rewound to a checkpoint that is not older than that.

use std::collections::BTreeMap;

use qluster_consensus::model::{Lsn, NodeId};
use qluster_consensus::protocol::database::SyncRule;

use crate::database::Postgres;
use crate::database::error::{Error, Result};
use crate::database::sessions::client::{QUERY_TIMEOUT, cell, lsn, within};
use crate::database::sessions::report::Session;
use crate::formats;

/// PostgreSQL removes WAL by files, which have this size unless somebody chose another, in bytes. So smaller moves are useless.
const WAL_FILE_SIZE: u64 = 16 << 20;

/// Our slots, what the standbys have flushed, and the last checkpoint.
const SLOTS: &str = "
    SELECT r.recovery, c.redo_lsn::text, s.slot_name::text, s.active, s.restart_lsn::text, s.wal_status,
           (SELECT max(flush_lsn)::text FROM pg_stat_replication
             WHERE starts_with(application_name, s.slot_name || '_') AND state = 'streaming')
      FROM (SELECT pg_is_in_recovery() AS recovery) r, pg_control_checkpoint() c
      LEFT JOIN pg_replication_slots s ON s.slot_type = 'physical' AND NOT s.temporary
                                      AND starts_with(s.slot_name, 'qluster_')";

/// A slot of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    node: NodeId,
    active: bool,
    /// The position from which on it keeps WAL.
    keeps: Option<Lsn>,
    /// Whether it was invalidated, and keeps no WAL any more.
    lost: bool,
    /// What its standby has flushed, if that streams from here.
    streamed: Option<Lsn>,
}

/// What the database has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slots {
    in_recovery: bool,
    /// Where the last checkpoint or restartpoint begins.
    redo: Option<Lsn>,
    slots: Vec<Slot>,
}

/// Something to do, in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Drop(NodeId),
    Create(NodeId),
    Move(NodeId, Lsn),
}

fn name(node: NodeId) -> String {
    format!("qluster_{node}")
}

/// The node of a slot, by its name. None for a slot that is not ours.
fn node(slot: &str) -> Option<NodeId> {
    let digits = slot.strip_prefix("qluster_")?;
    let id = digits.parse().ok().map(NodeId)?;
    (name(id) == slot).then_some(id)
}

/// What to do so that each of `standbys`, and no other node, has a slot at the right position. `standbys` has what each node
/// reported as its position.
fn steps(found: &Slots, standbys: &BTreeMap<NodeId, Option<Lsn>>) -> Vec<Step> {
    let mut steps = Vec::new();
    for slot in found.slots.iter().filter(|slot| !slot.active) {
        if slot.lost || !standbys.contains_key(&slot.node) {
            steps.push(Step::Drop(slot.node));
        }
    }
    for (&node, told) in standbys {
        let slot = found.slots.iter().find(|slot| slot.node == node && (slot.active || !slot.lost));
        let Some(slot) = slot else {
            steps.push(Step::Create(node));
            continue;
        };
        let position = match found.in_recovery {
            true => told.zip(found.redo).map(|(told, redo)| told.min(redo)),
            false => slot.streamed,
        };
        if let (false, Some(keeps), Some(position)) = (slot.active, slot.keeps, position)
            && position.0 / WAL_FILE_SIZE > keeps.0 / WAL_FILE_SIZE
        {
            steps.push(Step::Move(node, position));
        }
    }
    steps
}

impl Postgres {
    pub(crate) async fn do_keep_wal(&self, mut standbys: BTreeMap<NodeId, Option<Lsn>>) -> Result<()> {
        standbys.remove(&self.data_dir.own.node);
        if self.data_dir.postmaster.pid().is_none() {
            return Err(Error::Unfit("it does not run".into()));
        }
        let session = self.sessions.session().await?;
        let found = find(&session).await?;
        carry_out(&session, &steps(&found, &standbys)).await
    }

    /// Creates the slots that the standbys of a rule lack. A promotion does not fail because of that.
    pub(super) async fn slots_for(&self, session: &Session, rule: &SyncRule) {
        let made = async {
            let found = find(session).await?;
            let wanted = rule.standbys.iter().map(|&node| (node, None)).collect();
            let mut steps = steps(&found, &wanted);
            let lost = |node: &NodeId| found.slots.iter().any(|slot| slot.node == *node && slot.lost);
            // Other slots may still be needed.
            steps.retain(|step| !matches!(step, Step::Drop(node) if !lost(node) || !rule.standbys.contains(node)));
            carry_out(session, &steps).await
        };
        if let Err(error) = made.await {
            tracing::warn!(error = error.chain(), "a slot for a standby could not be created");
        }
    }
}

async fn find(session: &Session) -> Result<Slots> {
    let rows = within(QUERY_TIMEOUT, "list its slots", session.client.query(SLOTS, &[])).await?;
    let Some(first) = rows.first() else {
        return Err(formats::Error { what: "list of slots", text: "nothing".into() }.into());
    };
    let mut slots = Vec::new();
    for row in &rows {
        let Some(node) = cell::<Option<&str>>(row, 2)?.and_then(node) else { continue };
        slots.push(Slot {
            node,
            active: cell::<Option<bool>>(row, 3)?.unwrap_or_default(),
            keeps: lsn(row, 4)?,
            lost: cell::<Option<&str>>(row, 5)? == Some("lost"),
            streamed: lsn(row, 6)?,
        });
    }
    Ok(Slots { in_recovery: cell(first, 0)?, redo: lsn(first, 1)?, slots })
}

/// Does all steps that can be done. Returns the first error.
async fn carry_out(session: &Session, steps: &[Step]) -> Result<()> {
    let mut failed = None;
    for step in steps {
        let (attempted, sql) = match *step {
            Step::Drop(node) => ("drop a slot", format!("SELECT pg_drop_replication_slot('{}')", name(node))),
            Step::Create(node) => {
                ("create a slot", format!("SELECT pg_create_physical_replication_slot('{}', true)", name(node)))
            }
            Step::Move(node, lsn) => {
                ("move a slot", format!("SELECT pg_replication_slot_advance('{}', '{lsn}')", name(node)))
            }
        };
        tracing::debug!(?step, "replication slots");
        if let Err(error) = within(QUERY_TIMEOUT, attempted, session.client.batch_execute(&sql)).await {
            failed = failed.or(Some(error));
        }
    }
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(node: u64, keeps: u64, streamed: Option<u64>) -> Slot {
        let (keeps, streamed) = (Some(Lsn(keeps * WAL_FILE_SIZE)), streamed.map(|lsn| Lsn(lsn * WAL_FILE_SIZE)));
        Slot { node: NodeId(node), active: false, keeps, lost: false, streamed }
    }

    fn told(standbys: &[(u64, Option<u64>)]) -> BTreeMap<NodeId, Option<Lsn>> {
        standbys.iter().map(|&(node, lsn)| (NodeId(node), lsn.map(|lsn| Lsn(lsn * WAL_FILE_SIZE)))).collect()
    }

    #[test]
    fn each_standby_has_a_slot_where_it_should_be() {
        let move_to = |node, lsn| Step::Move(NodeId(node), Lsn(lsn * WAL_FILE_SIZE));
        let (drop, create) = (|node| Step::Drop(NodeId(node)), |node| Step::Create(NodeId(node)));
        let lost = Slot { lost: true, keeps: None, ..slot(2, 0, None) };
        let active = Slot { active: true, ..slot(2, 3, Some(9)) };
        for (what, in_recovery, slots, standbys, expected) in [
            ("none is there", false, vec![], told(&[(2, None), (3, Some(5))]), vec![create(2), create(3)]),
            (
                "on a primary it goes with its standby",
                false,
                vec![slot(2, 3, Some(5))],
                told(&[(2, None)]),
                vec![move_to(2, 5)],
            ),
            ("and stays when that is away", false, vec![slot(2, 3, None)], told(&[(2, Some(5))]), vec![]),
            ("a small move", false, vec![slot(2, 5, Some(5))], told(&[(2, None)]), vec![]),
            ("none goes back", false, vec![slot(2, 5, Some(4))], told(&[(2, None)]), vec![]),
            ("on a standby to what was told", true, vec![slot(2, 3, None)], told(&[(2, Some(5))]), vec![move_to(2, 5)]),
            ("not beyond its restartpoint", true, vec![slot(2, 3, None)], told(&[(2, Some(9))]), vec![move_to(2, 7)]),
            ("and stays where nothing was told", true, vec![slot(2, 3, None)], told(&[(2, None)]), vec![]),
            (
                "who is not named has none",
                false,
                vec![slot(2, 3, Some(5)), slot(3, 3, None)],
                told(&[(3, None)]),
                vec![drop(2)],
            ),
            (
                "one that was invalidated is created again",
                false,
                vec![lost],
                told(&[(2, Some(5))]),
                vec![drop(2), create(2)],
            ),
            ("one in use is left alone", false, vec![active.clone()], told(&[(2, Some(5))]), vec![]),
            ("whoever has it", false, vec![active], told(&[]), vec![]),
        ] {
            let found = Slots { in_recovery, redo: Some(Lsn(7 * WAL_FILE_SIZE)), slots };
            assert_eq!(steps(&found, &standbys), expected, "{what}");
        }
    }

    #[test]
    fn slots_of_others_are_not_ours() {
        for (slot, expected) in [
            ("qluster_12", Some(12)),
            ("qluster_012", None),
            ("qluster_1_7", None),
            ("qluster_", None),
            ("qluster_backup", None),
            ("mine", None),
        ] {
            assert_eq!(node(slot), expected.map(NodeId), "{slot}");
        }
    }
}
