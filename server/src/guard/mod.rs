//! The guard: a small process beside the daemon. It ends a primary when the daemon's lease is over and the daemon, which
//! was killed or stopped, did not do so.
//!
//! The daemon sends a deadline: until when the database may serve as a primary ([`Guard`]). The guard waits for that
//! instant, and then climbs the demote ladder. A daemon that works always acts first: it fences the database some time
//! before its lease ends. The guard leaves a standby alone.
//!
//! - The guard outlives its daemon. It waits for the last deadline that it got, ends the database, and exits.
//! - A new daemon starts its own guard. The new guard ends the earlier ones only when it gets its first deadline. Until
//!   then the new daemon has not proven that its lease continues, and the deadline of the earlier guards counts.
//! - The guard holds the watchdog, not the daemon. So the watchdog is disarmed even if the daemon is gone, and it resets
//!   the machine if neither of them ends the database.
//! - Nothing is promoted until a guard has reported that it is ready ([`Guard::hold`]).
//!
//! # Layout
//!
//! - `handle`, `child`: the daemon's side. `frame`: the messages between the two.
//! - `run`: the guard process. `watch`: its decisions, pure functions. `end_primary`: ending the database.
//! - `others`: guards of earlier daemons. `watchdog`: the device.
//!
//! It uses `os` and `formats`, and no other part of the server, except for [`crate::report`].

mod child;
mod end_primary;
mod error;
mod frame;
mod handle;
mod others;
mod run;
mod watch;
mod watchdog;

use std::path::PathBuf;

use serde::Deserialize;

pub use self::error::GuardError;
pub use self::handle::{Deadline, Guard, Hold};
pub use self::run::{Arguments, run};

/// The subcommand that runs a guard.
const COMMAND: &str = "guard";

/// What is guarded, and how.
#[derive(Clone, Debug)]
pub struct GuardConfig {
    /// The program whose subcommand `guard` is the guard: the daemon's own.
    pub program: PathBuf,
    /// The data directory, as the kernel names it (a canonical path).
    pub data_dir: PathBuf,
    /// The working directory of the guard: the same for each guard of this database, and used by no other database.
    pub run_dir: PathBuf,
    /// Programs that work on the data directory. Only their names count.
    pub programs: Vec<PathBuf>,
    /// Which watchdog it kicks, if any.
    pub watchdog: WatchdogSettings,
}

/// Whether a watchdog is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WatchdogMode {
    /// No watchdog is used.
    Off,
    /// The device is used if it can be.
    #[default]
    Automatic,
    /// Nothing is promoted without it.
    Required,
}

/// Which watchdog is used, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchdogSettings {
    /// Whether one is used.
    pub mode: WatchdogMode,
    /// The device.
    pub device: PathBuf,
}

impl Default for WatchdogSettings {
    fn default() -> Self {
        Self { mode: WatchdogMode::default(), device: "/dev/watchdog".into() }
    }
}
