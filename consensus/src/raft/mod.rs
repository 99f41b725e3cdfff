//! Raft, by openraft: the core, leases, elections, the transport, the state machine and the store. No other room names
//! openraft.

pub(crate) mod context;
pub(crate) mod core;
pub(crate) mod election;
pub(crate) mod lease;
mod network;
pub(crate) mod propose;
#[cfg(feature = "simulation")]
pub mod runtime;
pub mod state_machine;
pub mod store;
pub mod transport;
pub mod types;
pub(crate) mod views;
pub mod wire;
