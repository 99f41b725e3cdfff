//! How a node starts: its settings, becoming a member of a cluster, going on alone, and what systemd hears.
//!
//! # Layout
//!
//! - `settings`: the node's file, environment and command line.
//! - `node`: starts the node as it was, as the first of a cluster, or as a new member. `join`: how a new member is added
//!   and enrolled. `known`: whether the settings fit what the cluster knows of the node.
//! - `readonly`: starts the rounds of `crate::statements`, if this program has them.
//! - `recover`: one node goes on alone. `systemd`: notifications.

mod error;
pub mod join;
pub(crate) mod known;
pub(crate) mod node;
mod readonly;
pub mod recover;
pub mod settings;
pub(crate) mod systemd;

use qluster_consensus::model::NodeRole;

pub use self::error::StartError;

/// How a node starts.
#[derive(Clone, Debug)]
pub enum Start {
    /// As it ended.
    Run,
    /// As the first node of a new cluster, unless it is part of one.
    Bootstrap,
    /// As a new member of the cluster of the node at an address, unless it is part of one.
    Join {
        /// Address of a node's API.
        url: String,
        /// The role that the node gets when it is enrolled.
        role: NodeRole,
    },
}
