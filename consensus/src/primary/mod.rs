//! What directs the database of this node.

pub(crate) mod hand_over;
pub(crate) mod local;
pub(crate) mod recruit;
pub(crate) mod supervisor;
pub(crate) mod sync_rule;
