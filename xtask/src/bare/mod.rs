//! The README's first commands, on a system that has Rust, a linker and nothing else.
//!
//! The system is a minimal Debian root of this machine's version, made by mmdebstrap. Rust, the crates that cargo has
//! downloaded and the checkout are this machine's, below overlays: what was compiled before is used again, except for
//! crates that take a C compiler or libclang. Those are compiled again, in the bare root.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cargo::{cargo, output, root as workspace, run as run_command};
use crate::cluster::Directory;
use crate::guide::blocks;
use crate::{install, interrupt};

/// Mounts the root and runs the commands in it.
const INSIDE: &str = include_str!("inside.sh");

/// What Rust needs to link, and what apt needs for mirrors that are reached by TLS.
const PACKAGES: &str = "--include=ca-certificates,gcc,libc6-dev";

/// What must not be in the root before, and must be there after: parts of file names.
const LIBCLANG: &str = "libclang-";
const POSTGRES: &str = "pg_basebackup";
/// What no demo and no build installs.
const BROWSER: &str = "chromium";

/// Crates with which build scripts compile C or read C headers, and the one that does the latter, with libclang.
const NATIVE: [&str; 3] = ["bindgen", "cc", "cmake"];
const HEADERS: [&str; 1] = ["bindgen"];

/// Tries both ways to start that the README names. Says in a sentence why that is not possible here, if it is not.
pub(crate) fn run() -> Result<()> {
    if let Some(missing) = missing() {
        println!("the README's first commands are not tried on a bare system: {missing}");
        return Ok(());
    }
    let readme = workspace().join("README.md");
    let readme = std::fs::read_to_string(&readme).with_context(|| format!("reading {}", readme.display()))?;
    let build = build_commands(&readme)?;
    interrupt::watch()?;
    let dir = Directory::create("bare", None)?;
    let root = dir.path().join("root");
    bootstrap(&root)?;
    check_bare(&root)?;
    // Of this platform alone: cargo would download the crates of all others.
    let platform = format!("--filter-platform={}", platform(&output(rustc(&["-vV"]))?)?);
    let metadata = output(cargo(&["metadata", "--format-version=1", "--locked", &platform]))?;
    let (native, headers) = (building_with(&NATIVE, &metadata)?, building_with(&HEADERS, &metadata)?);
    ensure!(!headers.is_empty(), "no crate builds with {HEADERS:?} any more: is libclang still needed?");
    try_commands(&dir, &root, "demo", "cargo xtask demo --check\n", &native)?;
    // That C compiles there is known by now; whether the packages in the README have libclang is not.
    try_commands(&dir, &root, "build", &build, &headers)?;
    println!("bare check: `cargo xtask demo` and the plain build work on a system that has only Rust");
    Ok(())
}

/// Why there can be no bare root here. None if there can be one.
fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("making a root and mounting it take root");
    }
    (!install::runs("apt-get")).then_some("there is no apt-get here")
}

/// The plain build as the README has it, packages first. Nobody needs `sudo` in the root, and an optimised build would
/// take long and need nothing else.
fn build_commands(readme: &str) -> Result<String> {
    let blocks = blocks::read("README.md", readme)?;
    let is_build = |code: &str| code.contains("apt-get install") && code.contains("cargo build");
    let block = blocks.into_iter().find(|block| is_build(&block.code));
    let block = block.context("README.md has no block that installs packages and then runs `cargo build`")?;
    Ok(block.code.replace("sudo ", "").replace("--release ", "").replace("/release", "/debug"))
}

/// Makes a root with what Rust needs.
fn bootstrap(root: &Path) -> Result<()> {
    let begun = Instant::now();
    let release = std::fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = suite.context("/etc/os-release has no VERSION_CODENAME")?.trim_matches('"');
    let mmdebstrap = install::tool("mmdebstrap", "mmdebstrap")?;
    // In a mount namespace: what it mounts in the root is gone with it, however it ends.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--"]).arg(mmdebstrap.get_program());
    command.args(["--quiet", "--mode=root", "--variant=minbase", PACKAGES, suite]).arg(root).args(sources());
    run_command(command)?;
    println!("a root of Debian {suite} was made in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// The files that name this machine's mirrors.
fn sources() -> Vec<PathBuf> {
    let more = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let known = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "list" || ending == "sources");
    let all = std::iter::once(PathBuf::from("/etc/apt/sources.list")).chain(more);
    all.filter(|path| path.is_file() && known(path)).collect()
}

/// Fails if the root has what the commands are to install.
fn check_bare(root: &Path) -> Result<()> {
    for part in [LIBCLANG, POSTGRES, BROWSER] {
        let found = find(root, part)?;
        ensure!(found.is_none(), "the root is not bare: {} is in it", found.unwrap_or_default().display());
    }
    Ok(())
}

/// The first file below `dir` whose name contains `part`.
fn find(dir: &Path, part: &str) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(part) {
            return Ok(Some(entry.path()));
        }
        if entry.file_type()?.is_dir()
            && let Some(found) = find(&entry.path(), part)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The crates whose build scripts use one of these crates, by the graph in what `cargo metadata` says. Optional
/// dependencies that are not used are not in it.
fn building_with(tools: &[&str], metadata: &str) -> Result<Vec<String>> {
    let metadata: Value = serde_json::from_str(metadata).context("reading what `cargo metadata` says")?;
    let nodes = metadata["resolve"]["nodes"].as_array().context("`cargo metadata` has no graph")?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` names no packages")?;
    let name = |id: &Value| packages.iter().find(|package| package["id"] == *id)?["name"].as_str();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_tool = |dependency: &Value| {
        let builds = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] == "build");
        builds && name(&dependency["pkg"]).is_some_and(|name| tools.contains(&name))
    };
    let uses = |node: &&Value| list(&node["deps"]).iter().any(is_tool);
    let names: BTreeSet<_> = nodes.iter().filter(uses).filter_map(|node| name(&node["id"])).collect();
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// Runs commands in a copy of the bare root and of the checkout, in which `again` have not been compiled yet. Fails unless
/// libclang and PostgreSQL were installed on the way, and the bindings that libclang serves were made there.
fn try_commands(dir: &Directory, root: &Path, name: &str, commands: &str, again: &[String]) -> Result<()> {
    let begun = Instant::now();
    println!(
        "on the bare system, compiling {} again:\n  {}",
        again.join(", "),
        commands.trim_end().replace('\n', "\n  ")
    );
    let work = dir.path().join(name);
    std::fs::create_dir(&work).with_context(|| format!("creating {}", work.display()))?;
    let write = |name: &str, text: &str| {
        let path = work.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        anyhow::Ok(path)
    };
    let (script, file) = (write("inside.sh", INSIDE)?, write("commands.sh", commands)?);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--ipc", "--fork", "--kill-child", "--", "bash"]).arg(script);
    command.env_clear().envs(environment(std::env::vars()));
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("WORK", &work).env("ROOT", root);
    command.env("CHECKOUT", workspace()).env("COMMANDS", file).env("AGAIN", again.join(" "));
    command.env("CARGO_HOME", cargo_home()?).env("SYSROOT", sysroot()?).stdin(Stdio::null());
    let status = command.status().context("starting `unshare`")?;
    interrupt::check()?;
    ensure!(status.success(), "on a bare system this fails, see above: {}", commands.trim_end());
    let (installed, built) = (work.join("root"), work.join("checkout/target/debug"));
    for part in [LIBCLANG, POSTGRES] {
        ensure!(find(&installed, part)?.is_some(), "the commands have not installed {part}");
    }
    ensure!(find(&installed, BROWSER)?.is_none(), "the commands have installed a browser");
    for file in ["bindings.rs", "qluster-server"] {
        ensure!(find(&built, file)?.is_some(), "{file} was not made on the bare system, so nothing was tried");
    }
    println!("  worked, in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// What of this machine's environment is of use in the root: how the network is reached, and how to compile.
fn environment(all: impl Iterator<Item = (String, String)>) -> impl Iterator<Item = (String, String)> {
    all.filter(|(name, _)| name.to_lowercase().ends_with("_proxy") || ["CI", "CARGO_BUILD_JOBS"].contains(&&name[..]))
}

fn cargo_home() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).context("neither CARGO_HOME nor HOME is set")
}

fn rustc(args: &[&str]) -> Command {
    let mut command = Command::new("rustc");
    command.args(args).current_dir(workspace()).stdin(Stdio::null());
    command
}

/// The platform in what `rustc -vV` says.
fn platform(version: &str) -> Result<&str> {
    version.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV` names no host")
}

/// The toolchain's directory.
fn sysroot() -> Result<PathBuf> {
    let path = PathBuf::from(output(rustc(&["--print", "sysroot"]))?.trim());
    match path.join("bin/cargo").is_file() {
        true => Ok(path),
        false => {
            bail!("{} has no bin/cargo: the bare root takes a toolchain that is whole in one directory", path.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_names_packages_and_a_build() {
        let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap();
        let commands = build_commands(&readme).unwrap();
        assert!(commands.contains("apt-get install") && commands.contains("\ncargo build --bin qluster-server\n"));
        assert!(!commands.contains("sudo") && !commands.contains("release"), "{commands}");
        assert!(build_commands("```sh\ncargo build\n```\n").is_err());
    }

    #[test]
    fn a_root_with_libclang_is_not_bare() {
        let dir = Directory::create("not-bare", None).unwrap();
        let lib = dir.path().join("usr/lib");
        std::fs::create_dir_all(&lib).unwrap();
        check_bare(dir.path()).unwrap();
        std::fs::write(lib.join("libclang-14.so.1"), "").unwrap();
        let error = check_bare(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is not bare") && error.contains("libclang-14.so.1"), "{error}");
    }

    #[test]
    fn crates_that_take_a_c_compiler_are_known_by_what_they_build_with() {
        let metadata = r#"{
            "packages": [
                {"id": "1", "name": "pg_query"}, {"id": "2", "name": "aws-lc-sys"}, {"id": "3", "name": "serde"},
                {"id": "4", "name": "cc"}, {"id": "5", "name": "bindgen"}
            ],
            "resolve": {"nodes": [
                {"id": "1", "deps": [
                    {"pkg": "5", "dep_kinds": [{"kind": "build"}]}, {"pkg": "4", "dep_kinds": [{"kind": "build"}]}
                ]},
                {"id": "2", "deps": [{"pkg": "4", "dep_kinds": [{"kind": "build"}]}]},
                {"id": "3", "deps": [{"pkg": "4", "dep_kinds": [{"kind": null}]}]}
            ]}
        }"#;
        assert_eq!(building_with(&["cc", "bindgen"], metadata).unwrap(), ["aws-lc-sys", "pg_query"]);
        assert_eq!(building_with(&["bindgen"], metadata).unwrap(), ["pg_query"]);
        assert!(building_with(&["bindgen"], "{}").is_err());
    }

    #[test]
    fn the_environment_that_goes_in_is_the_network_and_no_path_of_libclang() {
        let all = [("https_proxy", "p"), ("LIBCLANG_PATH", "/x"), ("CI", "true"), ("HOME", "/h")];
        let kept: Vec<_> = environment(all.map(|(name, value)| (name.into(), value.into())).into_iter()).collect();
        assert_eq!(kept, [("https_proxy".into(), "p".into()), ("CI".to_owned(), "true".to_owned())]);
    }
}
