//! qluster's consensus: the cluster's vocabulary, its replicated state and its elections.
//!
//! It knows neither HTTP nor PostgreSQL: it sees a [`Transport`](raft::transport::Transport) and a
//! [`Database`](protocol::database::Database), and is whole without a database.
//!
//! # Layout
//!
//! Six rooms. Each uses only those above it in this list; `cargo xtask deps` checks that.
//!
//! - [`model`]: the vocabulary and the API's schemas; all there is without the feature `raft`.
//! - [`mod@env`]: what a simulation replaces: the clock, chance, observers, sabotage; and locks.
//! - [`protocol`]: pure: commands, the state, versions, quorums, membership, the plan, the choice of a primary, and the
//!   trait for a database.
//! - [`raft`]: openraft, wired: the core, leases, elections, the transport, the state machine, the store.
//! - `primary`: what directs the database of this node.
//! - [`node`]: the handle that the server uses, and the rounds that a node does by itself.

#![deny(missing_docs)]

pub mod model;

#[cfg(feature = "raft")]
pub mod env;
#[cfg(feature = "raft")]
pub mod node;
#[cfg(feature = "raft")]
mod primary;
#[cfg(feature = "raft")]
pub mod protocol;
#[cfg(feature = "raft")]
pub mod raft;
