//! qluster's consensus: the cluster's vocabulary, its replicated state and its elections.
//!
//! # Layout
//!
//! - [`model`]: the vocabulary; all there is without the feature `raft`.

#![deny(missing_docs)]

#[cfg(feature = "raft")]
pub mod command;
#[cfg(feature = "raft")]
pub mod database;
pub mod model;
