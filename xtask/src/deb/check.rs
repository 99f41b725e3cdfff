//! Installs, upgrades and removes the package by dpkg, in a root of its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::{AFTER, BEFORE, Root};
use crate::cargo::{root as workspace, run as run_command};
use crate::cluster::Directory;
use crate::interrupt;

const UNIT: &str = "/usr/lib/systemd/system/qluster.service";
const SETTINGS: &str = "/etc/qluster/config.yaml";
const START: &str = "/etc/default/qluster";
const STORE: &str = "/var/lib/qluster/raft.redb";

/// The most exposure that `systemd-analyze security` may find, in tenths. 10 is a service without any restriction.
const EXPOSURE: &str = "--threshold=40";

/// Runs the check. If that is not possible here, it prints why.
pub(super) fn run(before: &Path, after: &Path) -> Result<()> {
    interrupt::watch()?;
    let dir = Directory::create("deb", None)?;
    let Some(root) = Root::create(&dir.path().join("root"))? else {
        println!("the package is not installed: overlay file systems are not permitted here");
        return Ok(());
    };
    check(&root, before, after)
}

fn check(root: &Root, before: &Path, after: &Path) -> Result<()> {
    root.install(before)?;
    expect(root, &["daemon-reload"])?;
    ensure!(version(root)? == BEFORE, "after its installation the version is {:?}", version(root)?);
    for file in [
        "/usr/share/man/man1/qluster-server.1",
        "/usr/share/man/man1/qluster.1",
        "/usr/share/man/man1/qluster-status.1",
        "/usr/share/bash-completion/completions/qluster-server",
        "/usr/share/bash-completion/completions/qluster",
        "/usr/share/zsh/vendor-completions/_qluster-server",
        "/usr/share/zsh/vendor-completions/_qluster",
        "/usr/share/fish/vendor_completions.d/qluster-server.fish",
        "/usr/share/fish/vendor_completions.d/qluster.fish",
        START,
    ] {
        ensure!(root.at(file).is_file(), "{file} is not in the package");
    }
    for (program, name) in [("/usr/bin/qluster-server", "qluster-server "), ("/usr/bin/qluster", "qluster ")] {
        let said = root.run(&[program, "--version"])?;
        ensure!(said.starts_with(name), "{program} says that it is {said:?}");
    }
    unit(root)?;

    // Settings that a person has changed, and files that the node has written, survive all of this.
    let settings = root.read(SETTINGS)?.replace("#ip: 127.0.0.1", "ip: 127.0.0.1");
    ensure!(settings.contains("\nip: 127.0.0.1"), "{SETTINGS} has no address to set: {settings}");
    root.write(SETTINGS, &settings)?;
    root.write(STORE, "what the node has promised")?;
    let kept = |when: &str| {
        ensure!(root.read(SETTINGS)? == settings, "{when} the settings have changed");
        ensure!(root.at(STORE).is_file(), "{when} the node's store is gone");
        anyhow::Ok(())
    };

    // The upgrade is repeated, as after one that was interrupted, and taken back.
    for (package, expected) in [(after, AFTER), (after, AFTER), (before, BEFORE)] {
        root.install(package)?;
        expect(root, &["daemon-reload", "try-restart qluster.service"])?;
        ensure!(version(root)? == expected, "after an upgrade to {expected} the version is {}", version(root)?);
        kept("after an upgrade")?;
    }

    root.run(&["dpkg", "--no-triggers", "--remove", "qluster"])?;
    expect(root, &["disable --now qluster.service", "daemon-reload"])?;
    kept("after the removal")?;
    for program in ["/usr/bin/qluster-server", "/usr/bin/qluster"] {
        ensure!(!root.at(program).exists(), "after the removal {program} is still there");
    }
    root.run(&["dpkg", "--no-triggers", "--purge", "qluster"])?;
    expect(root, &[])?;
    ensure!(!root.at(SETTINGS).exists(), "after the purge its settings are still there");
    ensure!(root.at(STORE).is_file(), "after the purge the node's store is gone");
    println!("deb check: installed, upgraded, removed and purged; settings and data were kept");
    Ok(())
}

/// Checks that systemd understands the unit, and that the service is restricted enough.
fn unit(root: &Root) -> Result<()> {
    root.run(&["systemd-analyze", "verify", "--man=no", UNIT])?;
    let path = workspace().join("packaging/qluster.service");
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=yes", "--no-pager", EXPOSURE]).arg(path);
    security.stdout(std::process::Stdio::null());
    run_command(security)
}

fn version(root: &Root) -> Result<String> {
    root.run(&["dpkg-query", "--showformat=${Version}", "--show", "qluster"])
}

/// Fails if the package's scripts have called systemctl in another way.
fn expect(root: &Root, expected: &[&str]) -> Result<()> {
    let calls = root.systemctl()?;
    if calls != expected {
        bail!("the package's scripts called systemctl with {calls:?}, expected {expected:?}");
    }
    Ok(())
}
