//! PostgreSQL's text and binary formats: pure functions, without files, processes or connections.
//!
//! - `control`: the output of `pg_controldata`. `timelines`: timeline history files. `wal`: names and records of WAL files.
//! - `conf`: configuration files and connection strings. `directions`: what `qluster.conf` says that the database was told
//!   last. `sync_names`: values of `synchronous_standby_names`.
//! - `hba`: the files that say who may connect.
//!
//! It uses no other part of the server.

pub(crate) mod conf;
pub(crate) mod control;
pub(crate) mod directions;
mod error;
pub(crate) mod hba;
pub(crate) mod sync_names;
pub(crate) mod timelines;
pub(crate) mod wal;

pub use self::error::Error;

/// The role that standbys connect as.
pub(crate) const ROLE: &str = "qluster";
