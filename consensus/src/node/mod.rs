//! A node as a whole: the handle that the server uses, and the rounds that a node does by itself.

pub mod cluster;
pub(crate) mod error;
pub(crate) mod fitness;
#[cfg(feature = "simulation")]
pub mod inside;
pub(crate) mod leader;
pub mod recover;
pub(crate) mod tasks;
