//! The machine's side: accounts, files, disks, processes and programs.
//!
//! Of PostgreSQL it knows the process id file of a data directory, and nothing else. It uses no other part of the
//! server, except for [`crate::report`] (errors as text).
//!
//! - `account`: the account that PostgreSQL runs under. `run`: running programs.
//! - `files`: files that belong to that account. `disk`: free space, and mount points.
//! - `process`: single processes and signals. `postmaster`: all processes of a data directory, and ending them.
//! - `limits`: the daemon's own open-file limit. `lock`: mutexes.

pub(crate) mod account;
pub(crate) mod disk;
mod error;
pub(crate) mod files;
pub(crate) mod limits;
pub(crate) mod lock;
pub(crate) mod postmaster;
pub(crate) mod process;
pub(crate) mod run;

pub use self::error::Error;
pub(crate) use self::error::Result;
