//! Why a node does not serve, or did not start.

use crate::model::Leader;
use crate::raft::core::RaftError;
use crate::raft::store::StoreError;

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The request breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// Leadership moved on before the change was committed, and nothing was applied.
    #[error("leadership moved on before the change was committed; nothing was applied")]
    Superseded,
    /// The cluster or a node is not in the state that this needs.
    #[error("{0}")]
    Precondition(String),
    /// Only the leader does this.
    #[error("only the leader does this, and this node is not it: ask node {} at {}", .0.id, .0.ip)]
    NotLeader(Box<Leader>),
    /// The change is in the leader's log and was not confirmed in time.
    #[error("{0}")]
    Unconfirmed(String),
    /// There is no leader now.
    #[error("{0}")]
    NoLeader(String),
    /// This node's consensus does not run.
    #[error("{0}")]
    Unavailable(String),
    /// The disk or the code is at fault.
    #[error("{attempted}")]
    Internal {
        /// What was attempted.
        attempted: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was never made part of a cluster.
    #[error("this node is not part of a cluster yet: bootstrap one, or join one")]
    NoIdentity,
    /// Its store failed.
    #[error("the node's store cannot be used")]
    Store(#[from] StoreError),
    /// Its Raft core failed.
    #[error("consensus did not start")]
    Raft(#[from] RaftError),
}
