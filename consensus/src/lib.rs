//! qluster's consensus: the cluster's vocabulary, its replicated state and its elections.
//!
//! It knows neither HTTP nor PostgreSQL: it sees a [`Transport`] and a [`Database`](database::Database), and is whole
//! without a database.
//!
//! # Layout
//!
//! - [`model`]: the vocabulary and the API's schemas; all there is without the feature `raft`.
//! - [`command`], `state`, `machine`: what can be replicated, the pure function that applies it, openraft's view of it.
//! - [`store`]: the durable log, vote, snapshot and promises.
//! - [`version`]: versions of what is said and written, and who understands whom.
//! - `raft`, `network`, [`transport`], `types`: openraft, wired. Its names stay in these, `machine` and `store`.
//! - `election`, [`clock`], [`random`]: the three time-outs; time that counts suspends; chance.
//! - `plan`, `duty`, `recruit`, [`database`]: what the database of this node has to do, doing it, and the trait for it.
//! - [`durability`], `membership`, `leader`, `views`, `handover`: how many must hold what; who is a member; who sees whom.
//! - [`recover`]: one node goes on alone where the others are gone for good.
//! - [`readonly`]: the statements that do not write, as they are agreed on.
//! - `propose`, `tasks`, [`cluster`]: writing a change, a node's own rounds, and the handle that the server uses.
//! - `observe`: hooks for whoever measures.

#![deny(missing_docs)]

#[cfg(feature = "raft")]
pub mod clock;
#[cfg(feature = "raft")]
pub mod cluster;
#[cfg(feature = "raft")]
mod cluster_error;
#[cfg(feature = "raft")]
pub mod command;
#[cfg(feature = "raft")]
pub mod database;
#[cfg(feature = "raft")]
pub mod durability;
#[cfg(feature = "raft")]
mod duty;
#[cfg(feature = "raft")]
mod election;
#[cfg(feature = "raft")]
mod handover;
#[cfg(feature = "raft")]
mod leader;
#[cfg(feature = "raft")]
mod machine;
#[cfg(feature = "raft")]
mod membership;
pub mod model;
#[cfg(feature = "raft")]
mod network;
#[cfg(feature = "raft")]
mod observe;
#[cfg(feature = "raft")]
mod plan;
#[cfg(feature = "raft")]
mod propose;
#[cfg(feature = "raft")]
mod raft;
#[cfg(feature = "raft")]
pub mod random;
#[cfg(feature = "raft")]
pub mod readonly;
#[cfg(feature = "raft")]
pub mod recover;
#[cfg(feature = "raft")]
mod recruit;
#[cfg(feature = "raft")]
mod rule;
#[cfg(feature = "raft")]
pub mod sabotage;
#[cfg(feature = "simulation")]
pub mod simulation;
#[cfg(feature = "raft")]
mod state;
#[cfg(feature = "raft")]
pub mod store;
#[cfg(feature = "raft")]
mod tasks;
#[cfg(feature = "raft")]
pub mod transport;
#[cfg(feature = "raft")]
pub mod types;
#[cfg(feature = "raft")]
mod upkeep;
#[cfg(feature = "raft")]
pub mod version;
#[cfg(feature = "raft")]
mod views;

#[cfg(feature = "raft")]
pub use transport::Transport;
