//! Where members are.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::Node;

/// Where a member of the Raft cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Address of its API port, on which the peer channel is, too.
    pub address: SocketAddr,
}

impl Default for Peer {
    fn default() -> Self {
        Self { address: SocketAddr::from(([0, 0, 0, 0], 0)) }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

impl From<&Node> for Peer {
    fn from(node: &Node) -> Self {
        Self { address: node.api_address() }
    }
}
