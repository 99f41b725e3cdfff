//! Running programs to their end.

use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::error::{Error, Result};

/// How much of a program's output is kept for an error message, in bytes.
const KEPT_OUTPUT: usize = 2000;

/// A running program. When this is dropped, the program and everything that it started are killed.
struct Running {
    name: String,
    child: Child,
    group: Option<rustix::process::Pid>,
}

impl Running {
    fn kill(&self) {
        // A reaped child has no id any more, and its group may belong to another program by now.
        if let (Some(_), Some(group)) = (self.child.id(), self.group) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end and returns its standard output. `line` gets each line of its standard error. Dropping the
/// future kills the program.
///
/// # Errors
///
/// If the program cannot be started, or ends with another status than success.
pub(crate) async fn run(command: Command, name: &str, line: impl FnMut(&str)) -> Result<String> {
    run_until(command, name, line, std::future::pending()).await
}

/// The same. Once `stop` is ready, the program is killed, and `line` still gets what it has written by then.
pub(crate) async fn run_until(
    mut command: Command,
    name: &str,
    line: impl FnMut(&str),
    stop: impl Future<Output = ()>,
) -> Result<String> {
    let program = || PathBuf::from(name);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|source| Error::Spawn { program: program(), source })?;
    let group = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut running = Running { name: name.into(), child, group };
    let mut outputs = pin!(async { tokio::join!(all(stdout), tail(stderr, line)) });
    let (output, said) = tokio::select! {
        outputs = &mut outputs => outputs,
        () = stop => {
            running.kill();
            outputs.await
        }
    };
    let status = running.child.wait().await.map_err(|source| Error::Spawn { program: program(), source })?;
    if status.success() {
        return Ok(output);
    }
    let output = if said.trim().is_empty() { output } else { said };
    Err(Error::Program { program: running.name.clone(), status, output: output.trim().replace('\n', "; ") })
}

async fn all(stdout: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stdout) = stdout {
        // After an error, what was read before it has to do.
        let _ = stdout.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Passes each line to `line`, and returns the last ones.
async fn tail(stderr: Option<impl AsyncRead + Unpin>, mut line: impl FnMut(&str)) -> String {
    let mut last = String::new();
    let Some(stderr) = stderr else { return last };
    let mut reader = BufReader::new(stderr);
    let mut bytes = Vec::new();
    while matches!(reader.read_until(b'\n', &mut bytes).await, Ok(read) if read > 0) {
        let text = String::from_utf8_lossy(&bytes);
        line(text.trim_end());
        last.push_str(&text);
        last = ending(&last, KEPT_OUTPUT).to_owned();
        bytes.clear();
    }
    last
}

/// At most the last `limit` bytes of a text.
fn ending(text: &str, limit: usize) -> &str {
    let mut from = text.len().saturating_sub(limit);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ending_of_a_text_does_not_cut_a_character() {
        assert_eq!(ending("ööö", 3), "ö");
        assert_eq!(ending("abc", 10), "abc");
    }

    proptest! {
        #[test]
        fn any_text_has_an_ending(text in "\\PC{0,20}") {
            prop_assert!(ending(&text, 5).len() <= 5);
        }
    }
}
