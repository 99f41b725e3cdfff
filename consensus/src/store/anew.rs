//! The store of a node that goes on alone, in another cluster.

use super::disk::{Change, Fact};
use super::{Identity, Store, StoreError};
use crate::types::{LogId, SnapshotMeta, Vote};

impl Store {
    /// Replaces the identity, the vote and the log, of which nothing is left but a snapshot that ends at `last`, in one
    /// transaction. What this node owes on account of its database stays.
    ///
    /// For a store that nobody else uses: what others have read of it is not true any more, so it is closed.
    pub(crate) fn begin_anew(
        self,
        identity: &Identity,
        vote: &Vote,
        last: &LogId,
        meta: &SnapshotMeta,
        data: &[u8],
    ) -> Result<(), StoreError> {
        self.writer.disk()?.write(&[
            Change::fact(Fact::Identity, identity)?,
            Change::vote(vote)?,
            Change::Truncate { from: 0 },
            Change::purge(last)?,
            Change::snapshot(meta, data)?,
            Change::fact(Fact::Committed, last)?,
        ])
    }
}
