//! Programs that only a test runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::apt;
use crate::cargo::{root, run};

/// Where such programs are unpacked.
const TOOLS: &str = "target/tools";

/// A program that only a test runs. It is taken from the PATH, or from a Debian package that is unpacked below `target`
/// together with its dependencies. Nothing is installed, so that only the test ever starts it.
pub(crate) fn tool(program: &str, package: &str) -> Result<Command> {
    if let Some(path) = on_path(program) {
        return Ok(Command::new(path));
    }
    let root = root().join(TOOLS).join(package);
    if !root.is_dir() {
        unpack(package, &root)?;
    }
    let found = ["usr/bin", "usr/sbin"].map(|dir| root.join(dir).join(program)).into_iter().find(|path| path.is_file());
    let Some(found) = found else { bail!("Debian's package `{package}` has no program `{program}`") };
    let libraries = ["usr/lib", "lib"].iter().flat_map(|dir| std::fs::read_dir(root.join(dir)).into_iter().flatten());
    let libraries =
        libraries.flatten().map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with("-gnu"));
    let mut command = Command::new(found);
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?);
    Ok(command)
}

/// Where a program is.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps programs there that are not on the PATH of all users.
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Unpacks a package, and the dependencies that this machine lacks, to `root`. If that fails half-way, there is no
/// `root`.
fn unpack(package: &str, root: &Path) -> Result<()> {
    let Some(apt) = apt() else {
        bail!("`{package}` is missing; run: sudo apt-get install -y {package} (or the equivalent on your system)");
    };
    println!("{package} is missing: unpacking it below {TOOLS}");
    let part = root.with_extension("part");
    let archives = part.join("archives");
    std::fs::create_dir_all(archives.join("partial")).with_context(|| format!("creating {}", archives.display()))?;
    let cache = format!("Dir::Cache::archives={}", archives.display());
    // apt's own user may not be allowed into the directories above.
    let sandbox = "APT::Sandbox::User=root";
    run(apt(&["update"]))?;
    run(apt(&["install", "-y", "--no-install-recommends", "--download-only", "-o", &cache, "-o", sandbox, package]))?;
    let entries = std::fs::read_dir(&archives).with_context(|| format!("reading {}", archives.display()))?;
    for archive in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some("deb".as_ref())) {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("--extract").arg(archive).arg(&part);
        run(dpkg)?;
    }
    std::fs::remove_dir_all(&archives).with_context(|| format!("removing {}", archives.display()))?;
    std::fs::rename(&part, root).with_context(|| format!("renaming {}", part.display()))
}
