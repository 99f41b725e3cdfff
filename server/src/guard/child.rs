//! The daemon's end of a guard process.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use rustix::io::Errno;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::GuardConfig;
use super::error::GuardError;
use super::frame::{Frame, LENGTH, Reply};
use super::run::Arguments;

/// A guard that leaves more bytes unread is stuck: it reads at once, and gets a few frames per second.
const MAX_UNREAD: u64 = 40 * LENGTH as u64;

/// Something that happened to a guard.
pub(super) enum Event {
    /// It sent a reply.
    Reply(Reply),
    /// It ended, with this status.
    Ended(String),
}

/// A guard process. It continues when this is dropped.
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
        // The guard gets neither the daemon's settings nor its secrets.
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

    /// Sends it a frame, without waiting.
    pub(super) fn tell(&self, frame: &Frame) -> Result<(), GuardError> {
        let failed = |error: Errno| GuardError::Tell(error.into());
        let unread = rustix::io::ioctl_fionread(&self.frames).map_err(failed)?;
        if unread > MAX_UNREAD {
            return Err(GuardError::Stuck { unread });
        }
        rustix::io::write(&self.frames, &frame.encode()).map(drop).map_err(failed)
    }

    /// Waits until the guard sends a reply or ends. Nothing is lost when the future is dropped.
    pub(super) async fn event(&mut self) -> Event {
        let replies = &mut self.replies;
        let reply = async {
            loop {
                match replies.next_line().await {
                    Ok(Some(line)) => match Reply::decode(&line) {
                        Some(reply) => return reply,
                        None => tracing::debug!(line, "the guard sent an unexpected line"),
                    },
                    // The end of the process follows.
                    _ => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            reply = reply => Event::Reply(reply),
            Ok(status) = self.child.wait() => Event::Ended(status.to_string()),
        }
    }

    /// Kills the process and reaps it.
    pub(super) fn kill(mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(%error, "the guard could not be killed");
        }
        tokio::spawn(async move { self.child.wait().await });
    }
}
