//! The protocol as pure functions: no I/O, no tasks, no locks. Two items have state: `version::Spoken` keeps what the
//! cluster speaks, and the trait for a database tells its status by a channel.
//!
//! What can be replicated and what it does to the state; who must hold what; who is a member; what the database of a node
//! has to do; who is to be the primary. The other rooms carry out what is decided here.

pub mod choice;
pub mod command;
pub mod database;
pub(crate) mod fate;
pub(crate) mod hand_over;
pub(crate) mod membership;
pub(crate) mod peer;
pub(crate) mod plan;
pub(crate) mod promotion;
pub mod quorum;
pub mod readonly;
pub mod repair;
pub mod state;
pub(crate) mod sync_rule;
pub(crate) mod take_lead;
pub mod version;
