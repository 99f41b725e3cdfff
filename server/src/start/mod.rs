//! How a node starts: its settings, becoming a member of a cluster, going on alone, and what systemd is told.

pub mod join;
pub(crate) mod known;
pub mod recover;
pub mod settings;
pub(crate) mod systemd;
