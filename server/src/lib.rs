//! The daemon beside every PostgreSQL server of a qluster cluster.

pub mod api;
pub mod status;
