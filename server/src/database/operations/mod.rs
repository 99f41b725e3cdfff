//! What is done to the database: the operations of the trait `Database`, and starting and stopping it.
//!
//! One operation at a time changes anything: it holds the *turn*, and lends it to blocking work that continues when the
//! operation's future is dropped. Only the demote ladder takes no turn: it must not wait.
//!
//! - `initialize`, `extension`: creating a database. `start`, `stop`, `restart_hold`: starting, stopping, and not starting.
//! - `fence`, `promote`, `follow`: what the database is. `guarded`: the guard that a promotion waits for.
//! - `rewind`, `clone`, `rebuild`: making it a copy of its primary again.
//! - `direct`: writing its directions, and making sure that PostgreSQL has loaded them.
//! - `client_access`, `access_rules`: who may connect. `sync_rule`, `flush_wait`: what commits wait for.
//! - `slots`: WAL that is kept for standbys.
//!
//! It uses `status`, `sessions`, `data_dir`, `guard`, `os` and `formats`.

pub(crate) mod access_rules;
pub(crate) mod client_access;
mod clone;
pub(crate) mod direct;
mod extension;
mod fence;
mod flush_wait;
mod follow;
mod guarded;
mod initialize;
mod promote;
mod rebuild;
pub(crate) mod restart_hold;
mod rewind;
mod slots;
pub(crate) mod start;
mod stop;
pub(crate) mod sync_rule;

use std::time::Duration;

/// How often something is checked that takes milliseconds.
const CHECK_PERIOD: Duration = Duration::from_millis(3);

/// How long processes may take to end before a rebuild, by the demote ladder.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The event that the startup process of a standby waits for when it has replayed all its WAL and has no WAL receiver
/// (PostgreSQL's documentation, "Wait Events of Type Timeout").
pub(crate) const AT_END_OF_WAL: &str = "RecoveryRetrieveRetryInterval";
