//! The guard: a small process beside the agent that ends PostgreSQL when the agent's lease is over and the agent, which
//! is killed or stopped, did not.
//!
//! The agent tells it until when the database may serve as a primary ([`Guard`]); the guard waits for that instant, and
//! then climbs the demote ladder. A living agent always acts first: it fences some time before its lease ends. A
//! standby is left alone.
//!
//! - The guard outlives its agent. It goes on until the last deadline that it was told, does its work, and exits.
//! - A new agent has a guard of its own. That one ends the earlier ones only once it is told a deadline: until then the
//!   new agent has not proven that its lease goes on, and theirs counts.
//! - The guard holds the watchdog, not the agent: it is disarmed also where the agent is gone, and goes off where
//!   neither of them ended the database.
//! - Nothing is promoted without a guard that said that it is ready ([`Guard::hold`]).
//!
//! # Layout
//!
//! - `handle`, `child`: the agent's side. `frame`: what they say to each other.
//! - `duty`: the process itself. `watch`: what it decides. `others`, `watchdog`: earlier guards, and the device.

mod child;
mod duty;
mod error;
mod frame;
mod handle;
mod others;
mod watch;
mod watchdog;

use std::path::PathBuf;

use serde::Deserialize;

pub use self::duty::{Arguments, run};
pub use self::error::GuardError;
pub use self::handle::{Guard, Hold, Lease};

/// The subcommand that is a guard.
const COMMAND: &str = "guard";

/// What is guarded, and how.
#[derive(Clone, Debug)]
pub struct GuardConfig {
    /// The program that is a guard when it is told to: the agent's own.
    pub program: PathBuf,
    /// The data directory, as the kernel names it.
    pub data_dir: PathBuf,
    /// Where the guard works: the same directory for each guard of this database, and for nobody else's.
    pub run_dir: PathBuf,
    /// Programs that work on the database. Only their names count.
    pub programs: Vec<PathBuf>,
    /// Whether it kicks a watchdog.
    pub watchdog: WatchdogSettings,
}

/// Whether a watchdog is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WatchdogMode {
    /// None is used.
    Off,
    /// The device is used where it can be.
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
