//! What the project needs on a machine besides Rust, and how it gets there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{root, run, succeeds};
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

/// What building and testing takes besides.
const TESTS: [Need; 3] = [
    Need { what: "libclang", package: "libclang-dev", is_there: has_libclang },
    Need { what: "the browser Chromium", package: "chromium", is_there: || on_path("chromium").is_some() },
    Need { what: "Chromium's driver", package: "chromium-driver", is_there: || on_path("chromedriver").is_some() },
];

/// What making a package takes, and checking one.
const PACKAGING: [Need; 2] = [
    Need { what: "dpkg-shlibdeps", package: "dpkg-dev", is_there: || runs("dpkg-shlibdeps") },
    Need { what: "systemd-analyze", package: "systemd", is_there: || runs("systemd-analyze") },
];

/// Whether there is libclang, and the headers of its own that it needs: the build of `pg_query` looks into C headers
/// with it.
fn has_libclang() -> bool {
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let roots = entries(Path::new("/usr/lib")).into_iter().filter(|path| name(path).starts_with("llvm"));
    let dirs: Vec<PathBuf> =
        roots.map(|root| root.join("lib")).chain(["/usr/lib", "/usr/lib64"].map(Into::into)).collect();
    let is_library = |path: &PathBuf| {
        let name = name(path);
        name.starts_with("libclang") && name.contains(".so") && !name.starts_with("libclang-cpp")
    };
    let has_headers = |path: &PathBuf| path.join("include/stddef.h").exists();
    dirs.iter().any(|dir| entries(dir).iter().any(is_library))
        && dirs.iter().any(|dir| entries(&dir.join("clang")).iter().any(has_headers))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Where programs are unpacked that only a test uses.
const TOOLS: &str = "target/tools";

/// Whether a program is there.
pub(crate) fn runs(program: &str) -> bool {
    let mut version = Command::new(program);
    version.arg("--version");
    succeeds(version)
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

/// Installs all of that, where it is missing; or names the command.
pub(crate) fn all() -> Result<()> {
    let mut needs = vec![&POSTGRESQL];
    needs.extend(&TESTS);
    // Where there are no such packages, none are made.
    if runs("dpkg") {
        needs.extend(&PACKAGING);
    }
    missing(&needs)
}

/// The same of what making a package takes.
pub(crate) fn packaging() -> Result<()> {
    missing(&PACKAGING.each_ref())
}

/// Installs what is missing, where this user may; otherwise names the command.
fn missing(needs: &[&Need]) -> Result<()> {
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
    missing(&[&POSTGRESQL])?;
    match postgres::bin_dir() {
        Some(dir) => Ok(dir),
        None => bail!("PostgreSQL's programs are not found below /usr/lib/postgresql, nor on the PATH"),
    }
}

/// A program that only a test uses: the one on the PATH, or the one of a Debian package that is unpacked below `target`
/// with all that it depends on. Nothing is installed, so nothing of it is ever started but by the test.
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

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps programs there that are not on the path of all users.
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Unpacks a package, and what it needs and this machine lacks, to `root`, which is there once that is whole.
fn unpack(package: &str, root: &Path) -> Result<()> {
    let Some(apt) = apt() else {
        bail!("`{package}` is missing; run: sudo apt-get install -y {package} (or your system's equivalent)");
    };
    println!("{package} is missing: unpacking it below {TOOLS}");
    let part = root.with_extension("part");
    let archives = part.join("archives");
    std::fs::create_dir_all(archives.join("partial")).with_context(|| format!("creating {}", archives.display()))?;
    let cache = format!("Dir::Cache::archives={}", archives.display());
    // It would have to get through all directories above as a user of its own.
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
