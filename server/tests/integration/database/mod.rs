//! The database module over real PostgreSQL: `apt-get install postgresql-15` (or newer) provides it.

mod changes;
mod node;
mod standbys;
mod starting;
mod strayed;
mod sync_rule;
