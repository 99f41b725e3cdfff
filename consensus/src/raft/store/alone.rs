//! The store of a node that goes on alone, as a new cluster.

use std::collections::{BTreeMap, BTreeSet};

use super::disk::{Change, Fact};
use super::{Identity, Store, StoreError};
use crate::env::lock::lock;
use crate::model::{NodeId, Term};
use crate::protocol::peer::Peer;
use crate::protocol::state::State;
use crate::raft::wire::{LogPosition, Membership, PlacedMembership, SnapshotMetadata, VoteRecord};

impl Store {
    /// Replaces the identity, the vote and the log in one transaction. The log is replaced by a snapshot of `state` that
    /// ends at `last`, in which this node is the only voter. The record of the database stays. The term of the vote is not
    /// below `term`, nor below any term that the node has voted in.
    ///
    /// Nobody else may use the store: what they have read is not true any more. So this closes it.
    ///
    /// # Errors
    ///
    /// If `state` does not have the node as a member, or if the store cannot be written.
    pub(crate) fn go_on_alone(
        self,
        identity: &Identity,
        state: &State,
        last: LogPosition,
        term: Term,
    ) -> Result<(), StoreError> {
        let voted = lock(&self.writer.shared.log).vote;
        let vote = voted.filter(|vote| vote.term >= term).unwrap_or(VoteRecord {
            term: term.max(last.term),
            voted_for: identity.node,
            committed: false,
        });
        let members: BTreeMap<NodeId, Peer> = state.nodes.values().map(|node| (node.id, Peer::from(node))).collect();
        if !members.contains_key(&identity.node) {
            return Err(StoreError::Alone { node: identity.node });
        }
        let membership = Membership { voters: vec![BTreeSet::from([identity.node])], members };
        let membership = PlacedMembership { position: Some(last), membership };
        let meta = SnapshotMetadata { last: Some(last), membership, ..Default::default() };
        let data = postcard::to_stdvec(state)
            .map_err(|source| StoreError::Value { what: "write the state in the snapshot".into(), source })?;
        self.writer.disk()?.write(&[
            Change::fact(Fact::Identity, identity)?,
            Change::vote(&vote)?,
            Change::Truncate { from: 0 },
            Change::purge(&last)?,
            Change::snapshot(&meta, &data)?,
            Change::fact(Fact::Committed, &last)?,
        ])
    }
}
