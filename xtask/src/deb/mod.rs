//! The Debian package. `cargo deb` builds it from the files that are collected here.
//!
//! Programs, manual pages and completions are put where `cargo deb` expects a build. So it can pack a build that is not
//! optimised, or has another name.

mod check;
mod root;
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{self, cargo, output, root as workspace, run as run_command};
use crate::install;
use root::Root;

/// Pinned, because another version may have other options.
const TOOL: &str = "cargo-deb";
const TOOL_VERSION: &str = "3.8.0";

/// The programs. Each writes its own manual pages and completions. `server/Cargo.toml` names them, too.
const PROGRAMS: [&str; 2] = ["qluster-server", "qluster"];

/// Shells, and what comes before and after the name of a program in the name of its completions.
const SHELLS: [(&str, &str, &str); 3] = [("bash", "", ""), ("zsh", "_", ""), ("fish", "", ".fish")];

/// Builds the package with an optimised build, and prints its path.
pub(crate) fn run() -> Result<()> {
    let programs = cargo::build_programs(true)?;
    let package = pack(&programs.server, "release", None)?;
    println!("{}", package.display());
    Ok(())
}

/// Upgrades a cluster, node by node. If that is not possible here, it prints why.
pub(crate) fn upgrade(keep: Option<&Path>) -> Result<()> {
    let Some([before, after]) = before_and_after()? else { return Ok(()) };
    upgrade::run(&before, &after, keep)
}

/// Installs, upgrades and removes the package, and then upgrades a cluster.
pub(crate) fn test() -> Result<()> {
    let Some([before, after]) = before_and_after()? else { return Ok(()) };
    check::run(&before, &after)?;
    upgrade::run(&before, &after, None)
}

/// Packs programs that were built. `server` is the daemon, and the other programs are in its directory. `name` must not
/// be used by another package at the same time. `version` replaces the version of the workspace.
fn pack(server: &Path, name: &str, version: Option<&str>) -> Result<PathBuf> {
    install::for_packaging()?;
    let built = server.parent().context("a program is in a directory")?;
    let stage = built.with_file_name("package-deb").join(name);
    // Files of an earlier run would be packed as well.
    if stage.exists() {
        std::fs::remove_dir_all(&stage).with_context(|| format!("removing {}", stage.display()))?;
    }
    collect(server, &stage.join("release"))?;
    let package = stage.join("qluster.deb");
    let mut command = tool(&built.with_file_name("tools"))?;
    command.args(["--package=qluster-server", "--no-build", "--locked", "--quiet"]).arg("--output").arg(&package);
    match version {
        // For a test: packing in a hurry makes it larger, and nobody keeps it.
        Some(version) => command.arg(format!("--deb-version={version}")).arg("--fast"),
        // `cargo deb` strips only what it has built itself, unless it is asked to.
        None => command.arg("--strip"),
    };
    command.env("CARGO_TARGET_DIR", &stage);
    run_command(command)?;
    Ok(package)
}

/// Puts all files into `dir` that are packed and are not in the repository.
fn collect(server: &Path, dir: &Path) -> Result<()> {
    let pages = dir.join("packaging/man");
    let create = |dir: &Path| std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()));
    create(&pages)?;
    for name in PROGRAMS {
        let source = if name == PROGRAMS[0] { server.to_owned() } else { server.with_file_name(name) };
        let program = dir.join(name);
        std::fs::copy(&source, &program).with_context(|| format!("copying {}", source.display()))?;
        let mut man = Command::new(&program);
        man.arg("man").arg(&pages);
        run_command(man)?;
        for (shell, before, after) in SHELLS {
            let place = dir.join("packaging").join(shell);
            create(&place)?;
            let mut completion = Command::new(&program);
            completion.args(["completion", shell]);
            let path = place.join(format!("{before}{name}{after}"));
            std::fs::write(&path, output(completion)?).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}

/// The command `cargo deb`. It is installed into `tools` if it is missing.
fn tool(tools: &Path) -> Result<Command> {
    let ours = tools.join("bin").join(TOOL);
    let right = |program: &Path| {
        let mut version = Command::new(program);
        version.arg("--version");
        let said = version.stderr(std::process::Stdio::null()).output();
        said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).trim().ends_with(TOOL_VERSION))
    };
    let found = [Path::new(TOOL), &ours].into_iter().find(|program| right(program));
    if found.is_none() {
        println!("{TOOL} {TOOL_VERSION} is missing: installing it into {}", tools.display());
        let mut install = cargo(&["install", "--locked", "--quiet", TOOL, "--version", TOOL_VERSION, "--root"]);
        install.arg(tools);
        run_command(install)?;
        if !right(&ours) {
            bail!("{TOOL} was installed, but {} does not run", ours.display());
        }
    }
    let mut command = Command::new(found.unwrap_or(&ours));
    command.current_dir(workspace());
    Ok(command)
}

/// The packages before and after an upgrade. The daemon of the one after can be made to know a newer version of the
/// protocol, as that of a later release does: see [`NEWER`].
///
/// None if packages cannot be installed here; then it prints why.
fn before_and_after() -> Result<Option<[PathBuf; 2]>> {
    if let Some(missing) = missing() {
        println!("the package is not tried: {missing}");
        return Ok(None);
    }
    // This comes first, because the command line goes into both packages.
    let before = pack(&cargo::build_programs(false)?.server, "before", Some(BEFORE))?;
    let after = pack(&cargo::build_server_with_faults(false)?, "after", Some(AFTER))?;
    Ok(Some([before, after]))
}

const BEFORE: &str = "0.0.1-1";
const AFTER: &str = "0.0.2-1";

/// With this in its environment, the daemon of the package after knows one version more.
const NEWER: (&str, &str) = ("QLUSTER_FAULT_NEWEST_VERSION", "2");

/// Why packages cannot be installed here. None if they can.
fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("installing packages into roots of their own takes root");
    }
    (!install::runs("dpkg")).then_some("there is no dpkg here")
}
