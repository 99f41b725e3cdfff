//! What a core and its network share.

use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};

use crate::env::clock::Clock;
use crate::env::random::Random;
use crate::model::{NodeId, WalPosition};
use crate::protocol::version::Spoken;
use crate::raft::lease::LeaseGrants;
use crate::raft::transport::Transport;

/// What a core and its network share.
pub(crate) struct Context {
    pub(crate) id: NodeId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    /// The versions of the protocol that this node speaks.
    pub(crate) versions: Spoken,
    pub(crate) grants: Mutex<LeaseGrants>,
    /// The position of the local database, which is sent with pre-votes. None after the first round of an election.
    pub(crate) candidate: Mutex<Option<WalPosition>>,
    /// Becomes true when a peer says that this node was removed from the cluster.
    pub(crate) removed: watch::Sender<bool>,
    /// Makes this node stand for election at once, if it may.
    pub(crate) stand: Arc<Notify>,
}
