//! What the project needs on a machine besides Rust, and how it is installed.
//!
//! There are four lists, and each is checked in one place. [`for_building`]: [`crate::cargo::workspace`], through which
//! everything is compiled that takes more than Rust. [`postgresql`]: commands that run databases take the directory of
//! its programs from there. [`for_tests`]: the tests, which also drive a browser. [`for_packaging`]: what packs.

mod apt;
mod libclang;
mod tool;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cargo::{run, succeeds};
use crate::{deny, postgres};
use apt::apt;
use tool::on_path;
pub(crate) use tool::tool;

/// Something to install.
struct Need {
    what: &'static str,
    /// Its package in Debian and its derivatives.
    package: &'static str,
    is_there: fn() -> bool,
}

/// The build of `pg_query` reads C headers with libclang. A C compiler is not in this list: Rust links with it, so
/// without one this program could not have been compiled.
const BUILDING: [Need; 1] = [Need { what: "libclang", package: "libclang-dev", is_there: libclang::is_there }];

const POSTGRESQL: [Need; 1] =
    [Need { what: "the PostgreSQL server", package: "postgresql", is_there: || postgres::bin_dir().is_some() }];

/// The tests of the status page run it in a browser.
const BROWSER: [Need; 2] = [
    Need { what: "the browser Chromium", package: "chromium", is_there: || on_path("chromium").is_some() },
    Need { what: "Chromium's driver", package: "chromium-driver", is_there: || on_path("chromedriver").is_some() },
];

/// For making a package and checking it.
const PACKAGING: [Need; 2] = [
    Need { what: "dpkg-shlibdeps", package: "dpkg-dev", is_there: || runs("dpkg-shlibdeps") },
    Need { what: "systemd-analyze", package: "systemd", is_there: || runs("systemd-analyze") },
];

/// Whether a program is installed.
pub(crate) fn runs(program: &str) -> bool {
    let mut version = Command::new(program);
    version.arg("--version");
    succeeds(version)
}

/// Installs what any step of `cargo xtask test` needs, so that nothing is found missing after half an hour.
pub(crate) fn everything() -> Result<()> {
    for_building()?;
    for_tests()?;
    // Without dpkg there is no package to make or to check.
    if runs("dpkg") {
        for_packaging()?;
    }
    deny()
}

/// Installs what compiling the workspace takes.
pub(crate) fn for_building() -> Result<()> {
    libclang::check_path()?;
    require(&[&BUILDING])
}

/// Installs what the tests of the workspace run.
pub(crate) fn for_tests() -> Result<()> {
    require(&[&POSTGRESQL, &BROWSER])
}

/// Installs what making a package takes.
pub(crate) fn for_packaging() -> Result<()> {
    require(&[&PACKAGING])
}

/// Installs cargo-deny.
pub(crate) fn deny() -> Result<()> {
    if !deny::is_there() {
        println!("cargo-deny is missing: compiling it takes some minutes");
        run(deny::install())?;
    }
    Ok(())
}

/// The directory of PostgreSQL's programs. They are installed if they are missing.
pub(crate) fn postgresql() -> Result<PathBuf> {
    require(&[&POSTGRESQL])?;
    match postgres::bin_dir() {
        Some(dir) => Ok(dir),
        None => bail!("PostgreSQL's programs are neither below /usr/lib/postgresql nor on the PATH"),
    }
}

/// Installs what is missing. If this user may not, the error names the command that does.
fn require(lists: &[&[Need]]) -> Result<()> {
    let missing: Vec<&Need> = lists.iter().copied().flatten().filter(|need| !(need.is_there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = missing.iter().map(|need| need.what).collect::<Vec<_>>().join(" and ");
    let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    let Some(apt) = apt() else { bail!("{}", by_hand(&what, &packages)) };
    println!("{what} is missing: installing {} with apt", packages.join(" "));
    run(apt(&["update"]))?;
    run(apt(&[&["install", "-y"], &packages[..]].concat()))?;
    match missing.iter().find(|need| !(need.is_there)()) {
        Some(need) => bail!("apt installed `{}`, but {} is still not found", need.package, need.what),
        None => Ok(()),
    }
}

/// What a person has to run who may install packages.
fn by_hand(what: &str, packages: &[&str]) -> String {
    let packages = packages.join(" ");
    format!(
        "{what} is missing, and this user may not install it; run: sudo apt-get update && sudo apt-get install -y \
         {packages} (or the equivalent on your system)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_who_may_not_install_is_given_the_command() {
        let error = by_hand("libclang and the PostgreSQL server", &["libclang-dev", "postgresql"]);
        assert!(error.starts_with("libclang and the PostgreSQL server is missing"), "{error}");
        assert!(error.contains("run: sudo apt-get update && sudo apt-get install -y libclang-dev postgresql (or"));
    }

    #[test]
    fn what_is_there_is_not_installed() {
        let there = [Need { what: "nothing", package: "no-such-package", is_there: || true }];
        require(&[&there, &[]]).unwrap();
    }

    #[test]
    fn a_demo_needs_no_browser() {
        let demo = BUILDING.iter().chain(&POSTGRESQL);
        assert!(demo.into_iter().all(|need| !need.package.contains("chromium")));
    }
}
