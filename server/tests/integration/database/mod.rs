//! The database module over real PostgreSQL: `apt-get install postgresql-15` (or newer) provides it.

#![allow(clippy::unwrap_used)]

mod changes;
mod node;
mod standbys;
mod starting;
mod strayed;
mod sync_rule;
