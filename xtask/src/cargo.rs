//! Running cargo and other programs at the root of the workspace.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::interrupt;

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

/// Runs a command that tells people itself what it does.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let line = line(&command);
    let status = command.status().with_context(|| format!("starting `{line}`"))?;
    interrupt::check()?;
    if !status.success() {
        bail!("`{line}` failed ({status}); its output is above");
    }
    Ok(())
}

/// Runs a command for what it prints; its errors go where ours do.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let line = line(&command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("starting `{line}`"))?;
    interrupt::check()?;
    if !output.status.success() {
        bail!("`{line}` failed ({}); its errors are above", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("reading the output of `{line}`"))
}

/// Whether a command is there and succeeds, whatever it says.
pub(crate) fn succeeds(mut command: Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Builds the daemon and tells where it is.
pub(crate) fn build_server(release: bool) -> Result<PathBuf> {
    build(release, &["--bin=qluster-server"])
}

/// The same of the daemon with switches for tests of faults.
pub(crate) fn build_server_with_faults(release: bool) -> Result<PathBuf> {
    build(release, &["--bin=qluster-server-faults", "--features=qluster-server/faults"])
}

fn build(release: bool, what: &[&str]) -> Result<PathBuf> {
    // For the whole workspace, though one program is wanted: cargo then chooses the same features of dependencies as
    // for the tests, and builds none of them a second time.
    let mut command = cargo(&["build", "--workspace", "--locked", "--message-format=json-render-diagnostics"]);
    command.args(what);
    if release {
        command.arg("--release");
    }
    executable(&output(command)?).context("looking for the program in what `cargo build` said")
}

/// The program that cargo's JSON messages tell of.
fn executable(messages: &str) -> Result<PathBuf> {
    let mut paths = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    paths.next_back().context("expected a message with `executable`, found none")
}

/// A command as one would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(program).chain(args).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_last_executable_that_cargo_names() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/x/target/debug/qluster-server"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages).unwrap(), Path::new("/x/target/debug/qluster-server"));
        assert!(executable("").is_err());
    }

    #[test]
    fn commands_are_named_as_one_types_them() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["fmt", "--all"]);
        assert_eq!(line(&command), "cargo fmt --all");
        assert!(root().join("xtask/Cargo.toml").exists());
    }
}
