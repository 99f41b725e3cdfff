//! What the project needs on a machine besides Rust, and how it gets there.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cargo::{run, succeeds};
use crate::{deny, postgres};

/// Something to install.
struct Need {
    what: &'static str,
    /// Its package in Debian and what derives from it.
    package: &'static str,
    is_there: fn() -> bool,
}

const POSTGRESQL: Need =
    Need { what: "the PostgreSQL server", package: "postgresql", is_there: || postgres::bin_dir().is_some() };

/// What making a package takes, and checking one.
const PACKAGING: [Need; 2] = [
    Need { what: "dpkg-shlibdeps", package: "dpkg-dev", is_there: || runs("dpkg-shlibdeps") },
    Need { what: "systemd-analyze", package: "systemd", is_there: || runs("systemd-analyze") },
];

/// Whether a program is there.
pub(crate) fn runs(program: &str) -> bool {
    let mut version = Command::new(program);
    version.arg("--version");
    succeeds(version)
}

/// Installs all that tests need, where it is missing; or names the command.
pub(crate) fn all() -> Result<()> {
    postgresql()?;
    // Where there are no such packages, none are made.
    if runs("dpkg") { packaging() } else { Ok(()) }
}

/// The same of what making a package takes.
pub(crate) fn packaging() -> Result<()> {
    install(&PACKAGING)
}

/// Installs what the tests need.
pub(crate) fn for_tests() -> Result<()> {
    all()?;
    if !deny::is_there() {
        println!("cargo-deny is missing: it is built, which takes minutes");
        run(deny::install())?;
    }
    Ok(())
}

/// Installs what is missing, where this user may; otherwise names the command.
fn install(needs: &[Need]) -> Result<()> {
    let missing: Vec<_> = needs.iter().filter(|need| !(need.is_there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = missing.iter().map(|need| need.what).collect::<Vec<_>>().join(" and ");
    let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    let by_hand = format!("sudo apt-get update && sudo apt-get install -y {}", packages.join(" "));
    let Some(apt) = apt() else {
        bail!("{what} is missing, and this user may not install it; run: {by_hand} (or your system's equivalent)");
    };
    println!("{what} is missing: installing {} with apt", packages.join(" "));
    run(apt(&["update"]))?;
    run(apt(&[&["install", "-y"], &packages[..]].concat()))?;
    match missing.iter().find(|need| !(need.is_there)()) {
        Some(need) => bail!("apt installed `{}`, but {} is still not found", need.package, need.what),
        None => Ok(()),
    }
}

/// PostgreSQL's programs, installed where they were missing.
pub(crate) fn postgresql() -> Result<PathBuf> {
    install(&[POSTGRESQL])?;
    match postgres::bin_dir() {
        Some(dir) => Ok(dir),
        None => bail!("PostgreSQL's programs are not found below /usr/lib/postgresql, nor on the PATH"),
    }
}

/// How to run apt-get as root without a question, where that is possible.
fn apt() -> Option<fn(&[&str]) -> Command> {
    let mut version = Command::new("apt-get");
    version.arg("--version");
    if !succeeds(version) {
        return None;
    }
    if rustix::process::geteuid().is_root() {
        return Some(|args| quiet(Command::new("apt-get"), args));
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"]);
    succeeds(sudo).then_some(|args| {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        quiet(sudo, args)
    })
}

fn quiet(mut apt: Command, args: &[&str]) -> Command {
    apt.args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(args);
    apt.env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null());
    apt
}
