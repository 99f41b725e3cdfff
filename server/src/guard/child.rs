//! A guard process, as its agent has it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use rustix::io::Errno;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::GuardConfig;
use super::duty::Arguments;
use super::error::GuardError;
use super::frame::{Frame, LENGTH, Reply};

/// A guard that leaves so many bytes unread is stuck. It reads at once, and is told something a few times per second.
const UNREAD: u64 = 40 * LENGTH as u64;

/// What happens to a guard.
pub(super) enum Event {
    /// It said something.
    Reply(Reply),
    /// It ended, so.
    Ended(String),
}

/// A guard process. It lives on when this is dropped.
pub(super) struct Process {
    child: Child,
    frames: OwnedFd,
    replies: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(super) fn start(config: &GuardConfig) -> Result<Self, GuardError> {
        let mut command = Command::new(&config.program);
        if config.program == Path::new("/proc/self/exe")
            && let Ok(own) = std::env::current_exe()
        {
            command.arg0(own);
        }
        command.args(Arguments::of(config)).current_dir(&config.run_dir);
        // The agent's settings, and its secrets, are not for the guard.
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(GuardError::Start)?;
        let lost = || GuardError::Start(io::ErrorKind::BrokenPipe.into());
        let frames = child.stdin.take().ok_or_else(lost)?.into_owned_fd().map_err(GuardError::Start)?;
        rustix::io::ioctl_fionbio(&frames, true).map_err(|error| GuardError::Start(error.into()))?;
        let replies = BufReader::new(child.stdout.take().ok_or_else(lost)?).lines();
        Ok(Self { child, frames, replies })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Tells it something, without waiting.
    pub(super) fn tell(&self, frame: &Frame) -> Result<(), GuardError> {
        let failed = |error: Errno| GuardError::Tell(error.into());
        let unread = rustix::io::ioctl_fionread(&self.frames).map_err(failed)?;
        if unread > UNREAD {
            return Err(GuardError::Stuck { unread });
        }
        rustix::io::write(&self.frames, &frame.encode()).map(drop).map_err(failed)
    }

    /// Waits until it says something or has ended. Nothing is lost when this is dropped.
    pub(super) async fn event(&mut self) -> Event {
        let replies = &mut self.replies;
        let reply = async {
            loop {
                match replies.next_line().await {
                    Ok(Some(line)) => match Reply::decode(&line) {
                        Some(reply) => return reply,
                        None => tracing::debug!(line, "the guard said something odd"),
                    },
                    // Its end follows.
                    _ => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            reply = reply => Event::Reply(reply),
            Ok(status) = self.child.wait() => Event::Ended(status.to_string()),
        }
    }

    /// Ends one that is stuck.
    pub(super) fn kill(mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(%error, "the guard could not be killed");
        }
        tokio::spawn(async move { self.child.wait().await });
    }
}
