//! A look inside a node: for simulations.

use crate::node::cluster::Cluster;
use crate::protocol::state::State;
pub use crate::raft::core::Inside;

impl Cluster {
    /// How this node is inside.
    pub fn inside(&self) -> Inside {
        self.core().inside()
    }

    /// The state that this node has applied.
    pub fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.core().state_machine().read(|applied| look(&applied.state))
    }
}
