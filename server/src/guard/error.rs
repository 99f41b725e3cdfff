//! What can go wrong with a guard.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a database has no guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The process could not be started.
    #[error("the guard process could not be started")]
    Start(#[source] io::Error),
    /// A frame could not be written to it: it is gone, or does not read.
    #[error("the guard process could not be told until when the database may serve")]
    Tell(#[source] io::Error),
    /// It does not read its frames.
    #[error("the guard process is stuck: {unread} bytes for it are unread")]
    Stuck {
        /// The number of unread bytes.
        unread: u64,
    },
    /// It was not ready in time.
    #[error("the guard process was not ready within {within:?}: {state}")]
    NotReady {
        /// How long the daemon waited.
        within: Duration,
        /// Its state instead.
        state: String,
    },
    /// It lacks something that the settings require, such as the watchdog.
    #[error("{0}")]
    Refused(String),
    /// An earlier guard could not be ended.
    #[error("the guard of an earlier daemon, process {pid}, could not be ended")]
    Earlier {
        /// The process.
        pid: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a watchdog cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchdogError {
    #[error("the watchdog {} cannot be opened", device.display())]
    Open {
        device: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is no watchdog: expected a device such as /dev/watchdog", device.display())]
    Odd { device: PathBuf },
    #[error(
        "the watchdog {} resets the machine {timeout} s after the last kick, expected at most {longest} s, which is \
         node-timeout and one more: set it by the parameters of its driver (softdog: soft_margin={longest})",
        device.display()
    )]
    Slow { device: PathBuf, timeout: u64, longest: u64 },
    #[error(
        "the watchdog {} cannot be disarmed again (nowayout): each planned change of the primary would reset the \
         machine; expected a driver that was loaded with nowayout=0",
        device.display()
    )]
    Forever { device: PathBuf },
    #[error("the watchdog {} could not be kicked", device.display())]
    Kick {
        device: PathBuf,
        #[source]
        source: io::Error,
    },
}
