//! The licences, sources and bans of dependencies by `deny.toml`, and advisories if their database can be fetched.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::cargo::{cargo, run as run_command, succeeds};
use crate::install;

/// Checks all dependencies.
///
/// The database of advisories is a repository on the network, which not every machine can reach. If it cannot be
/// fetched, that is printed, and the other checks count.
pub(crate) fn run() -> Result<()> {
    install::deny()?;
    let checks = ["deny", "--locked", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"];
    run_command(cargo(&checks)).context("the rules are in deny.toml")?;
    let mut fetch = cargo(&["deny", "--locked", "fetch", "db"]);
    fetch.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null());
    if !succeeds(fetch) {
        println!("advisories are not checked: their database cannot be fetched from here");
        return Ok(());
    }
    run_command(cargo(&["deny", "--locked", "check", "--disable-fetch", "--hide-inclusion-graph", "advisories"]))
}

/// Whether cargo-deny is installed.
pub(crate) fn is_there() -> bool {
    succeeds(cargo(&["deny", "--version"]))
}

/// The command that compiles and installs cargo-deny, which takes minutes.
pub(crate) fn install() -> Command {
    cargo(&["install", "--locked", "--quiet", "cargo-deny@0.20.2"])
}
