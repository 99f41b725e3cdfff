//! Why a node did not start.

use qluster_consensus::node::cluster::StartError as ClusterStartError;
use qluster_consensus::raft::store::StoreError;

use super::join::JoinError;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is on the disk does not fit what was asked for; a sentence.
    #[error("{0}")]
    Refused(String),
    /// The store cannot be used.
    #[error("the node's store cannot be used")]
    Store(#[from] StoreError),
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Database(#[from] crate::database::Error),
    /// It could not join.
    #[error("this node could not join the cluster")]
    Join(#[from] JoinError),
    /// Consensus did not start.
    #[error("this node's part in the cluster did not start")]
    Cluster(#[from] ClusterStartError),
}

impl StartError {
    /// Whether another start would fail as well: somebody has to change something first.
    pub fn is_hopeless(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Store(StoreError::Newer { .. } | StoreError::Version(_)) => true,
            Self::Cluster(ClusterStartError::Store(StoreError::Version(_))) => true,
            Self::Join(error) => error.is_hopeless(),
            Self::Store(_) | Self::Cluster(_) | Self::Database(_) => false,
        }
    }
}
