//! The addresses of members.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::Node;

/// The address of a member of the Raft cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// That of its API port, which serves the peer channel, too.
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
