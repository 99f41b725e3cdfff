//! Running cargo and other programs at the root of the workspace.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{install, interrupt};

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The cargo that runs this, with `args`.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root()).stdin(Stdio::null());
    if !std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "never").env("CARGO_TERM_PROGRESS_WHEN", "never");
    }
    if std::env::var_os("CI").is_some() {
        // A fresh clone compiles everything once: what incremental builds keep would only be written.
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// `cargo SUBCOMMAND` for the whole workspace, to which more arguments can be added.
///
/// Everything that compiles PostgreSQL's parser goes this way, so what that takes is installed here first.
pub(crate) fn workspace(subcommand: &[&str], features: &str) -> Result<Command> {
    install::for_building()?;
    let mut command = cargo(subcommand);
    command.args(["--workspace", "--locked", features]);
    Ok(command)
}

/// Runs a command whose output is for people.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let line = line(&command);
    let status = command.status().with_context(|| format!("starting `{line}`"))?;
    interrupt::check()?;
    if !status.success() {
        bail!("`{line}` failed ({status}); its output is above");
    }
    Ok(())
}

/// Runs a command and returns its standard output. Its standard error is ours.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let line = line(&command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("starting `{line}`"))?;
    interrupt::check()?;
    if !output.status.success() {
        bail!("`{line}` failed ({}); its errors are above", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("reading the output of `{line}`"))
}

/// Whether a command can be started and succeeds. Its output is dropped.
pub(crate) fn succeeds(mut command: Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Features with the command line, which users of the client alone do not build. Everything is built with these for the
/// whole workspace: with other features, cargo would compile most dependencies a second time.
pub(crate) const FEATURES: &str = "--features=qluster-client/cli,qluster-client/readonly";
/// The same, with the switches of the daemon that tests put faults in with.
pub(crate) const FEATURES_WITH_FAULTS: &str =
    "--features=qluster-client/cli,qluster-client/readonly,qluster-server/faults";
/// The same, with what the simulation needs: all code that is compiled anywhere.
pub(crate) const ALL_FEATURES: &str =
    "--features=qluster-client/cli,qluster-client/readonly,qluster-server/faults,qluster-consensus/simulation";

/// The daemon and the command line.
pub(crate) struct Programs {
    pub(crate) server: PathBuf,
    pub(crate) cli: PathBuf,
}

/// Builds the daemon and the command line, and returns their paths.
pub(crate) fn build_programs(release: bool) -> Result<Programs> {
    let messages = build(release, FEATURES, &["--bin=qluster-server", "--bin=qluster"])?;
    let find = |name| executable(&messages, name).context("looking for programs in what `cargo build` said");
    Ok(Programs { server: find("qluster-server")?, cli: find("qluster")? })
}

/// Builds the daemon that has switches for faults, and returns its path.
pub(crate) fn build_server_with_faults(release: bool) -> Result<PathBuf> {
    let name = "qluster-server-faults";
    let messages = build(release, FEATURES_WITH_FAULTS, &["--bin", name])?;
    executable(&messages, name).context("looking for the program in what `cargo build` said")
}

/// Builds an optimised example, and returns its path.
pub(crate) fn build_example(name: &str) -> Result<PathBuf> {
    let messages = build(true, FEATURES, &["--example", name])?;
    executable(&messages, name).context("looking for the example in what `cargo build` said")
}

/// Builds targets, and returns cargo's messages as JSON.
fn build(release: bool, features: &str, targets: &[&str]) -> Result<String> {
    // The whole workspace is named although only a program or two are wanted: cargo then chooses the same features of
    // dependencies as for the tests, and compiles none of them a second time.
    let mut command = workspace(&["build"], features)?;
    command.arg("--message-format=json-render-diagnostics").args(targets);
    if release {
        command.arg("--release");
    }
    output(command)
}

/// The path of a program, by its name, from cargo's JSON messages.
fn executable(messages: &str, name: &str) -> Result<PathBuf> {
    let mut paths = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    let found = paths.find(|path| path.file_name().is_some_and(|file| file == name));
    found.with_context(|| format!("expected a message with the `executable` {name}, found none"))
}

/// A command as a person would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(program).chain(args).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name_among_the_executables_that_cargo_names() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/x/target/debug/qluster"}
{"reason":"compiler-artifact","executable":"/x/target/debug/qluster-server"}
{"reason":"build-finished","success":true}"#;
        for name in ["qluster", "qluster-server"] {
            assert_eq!(executable(messages, name).unwrap(), Path::new("/x/target/debug").join(name));
        }
        assert!(executable(messages, "server").is_err());
        assert!(executable("", "qluster").is_err());
    }

    #[test]
    fn commands_are_named_as_one_types_them() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["fmt", "--all"]);
        assert_eq!(line(&command), "cargo fmt --all");
        assert!(root().join("xtask/Cargo.toml").exists());
    }
}
