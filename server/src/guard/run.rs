//! The guard process: it waits, and does what [`Watch`] decides.
//!
//! It waits in a single `poll`, on a timer that also counts the time in which the machine was suspended. It allocates next
//! to nothing, and logs nothing before it has acted: writing to the daemon's log may be what everything else hangs on.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use qluster_consensus::env::clock::{Clock, Instant};
use rustix::event::{PollFd, PollFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::end_primary::end_primary;
use super::error::{GuardError, WatchdogError};
use super::frame::{Frame, LENGTH, Reply, Serve};
use super::watch::{Asked, Step, Watch};
use super::watchdog::Watchdog;
use super::{COMMAND, GuardConfig, WatchdogMode, WatchdogSettings, others};
use crate::report;

/// The arguments of a guard. All have a fixed place, so that a later guard recognizes an earlier one.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Data directory of the database
    data_dir: PathBuf,
    /// Whether a watchdog is used
    watchdog: WatchdogMode,
    /// The watchdog
    device: PathBuf,
    /// Programs that work on the database
    programs: Vec<PathBuf>,
}

impl Arguments {
    /// The words on the command line, the subcommand included.
    pub(super) fn of(config: &GuardConfig) -> Vec<std::ffi::OsString> {
        let WatchdogSettings { mode, device } = &config.watchdog;
        let mode = mode.to_possible_value().map_or_else(String::new, |mode| mode.get_name().to_owned());
        let fixed = [COMMAND.into(), config.data_dir.clone().into(), mode.into(), device.clone().into()];
        fixed.into_iter().chain(config.programs.iter().map(Into::into)).collect()
    }
}

/// Runs as the guard, until there is nothing left to guard and the daemon is gone.
pub fn run(arguments: Arguments) -> ExitCode {
    match GuardProcess::new(arguments).and_then(|mut guard| guard.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("the guard gives up: {error}"));
            ExitCode::FAILURE
        }
    }
}

struct GuardProcess {
    arguments: Arguments,
    clock: Clock,
    timer: OwnedFd,
    runtime: tokio::runtime::Runtime,
    watch: Watch,
    watchdog: Option<Watchdog>,
    /// Gets a byte for each SIGTERM.
    terminations: UnixStream,
    /// Whether the guards of earlier daemons are gone.
    relieved: bool,
    /// The watchdogs that those guards may have left armed.
    left: Vec<PathBuf>,
    /// The beginning of a frame whose rest has not arrived yet.
    heard: Vec<u8>,
}

impl GuardProcess {
    /// Does everything here that could fail later, when it matters.
    fn new(arguments: Arguments) -> std::io::Result<Self> {
        // A signal to the daemon's session or process group must not reach the guard. This fails if the guard has its own
        // session already, as when somebody started it by hand.
        let _ = rustix::process::setsid();
        // For people who list processes. Otherwise it would have the name of the link that started it.
        let _ = std::fs::write("/proc/self/comm", "qluster-guard");
        Ok(Self {
            arguments,
            clock: Clock::boottime(),
            timer: rustix::time::timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build()?,
            watch: Watch::default(),
            watchdog: None,
            terminations: terminations()?,
            relieved: false,
            left: Vec::new(),
            heard: Vec::new(),
        })
    }

    fn run(&mut self) -> std::io::Result<()> {
        loop {
            match self.watch.step(self.clock.now()) {
                Step::Wait(until) => self.wait(until)?,
                Step::Kick => self.kick(),
                // First what the daemon has sent meanwhile: this process itself may have been stopped.
                Step::End(fencing) if !self.listen(false)? => self.end(fencing),
                Step::End(_) => {}
                Step::Exit => return Ok(()),
            }
        }
    }

    /// Waits for a frame of the daemon, or for `until`.
    fn wait(&mut self, until: Option<Instant>) -> std::io::Result<()> {
        let spec = |instant: Duration| Timespec {
            tv_sec: instant.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: instant.subsec_nanos().into(),
        };
        // Zero stops the timer.
        let value = Itimerspec { it_interval: spec(Duration::ZERO), it_value: spec(until.unwrap_or_default()) };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &value)?;
        self.listen(true).map(drop)
    }

    /// Takes in the frames of the daemon, and returns whether there was anything. With `wait` it waits for a frame or the
    /// timer.
    fn listen(&mut self, wait: bool) -> std::io::Result<bool> {
        let stdin = std::io::stdin();
        let mut fds = [&self.timer as &dyn AsFd, &self.terminations, &stdin]
            .map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // The end of the input would make each poll return at once.
        let watched = if self.watch.is_alone() { &mut fds[..2] } else { &mut fds[..] };
        match rustix::event::poll(watched, (!wait).then_some(&now)) {
            Ok(_) => {}
            // The process was stopped and continued: the time has to be read again.
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        let [_, terminated, heard] = fds.map(|fd| !fd.revents().is_empty());
        if terminated && self.terminations.read(&mut [0; 16])? > 0 {
            self.watch.terminate(self.clock.now());
        }
        if self.watch.is_alone() || !heard {
            return Ok(false);
        }
        let mut bytes = [0; 128 * LENGTH];
        let read = rustix::io::read(stdin.as_fd(), &mut bytes).unwrap_or(0);
        if read == 0 {
            self.watch.daemon_gone();
            return Ok(false);
        }
        let mut heard = std::mem::take(&mut self.heard);
        heard.extend_from_slice(&bytes[..read]);
        let (frames, rest) = heard.as_chunks::<LENGTH>();
        for frame in frames {
            match self.watch.hear(Frame::decode(frame)) {
                Asked::Nothing => {}
                Asked::Ready(serve) => self.get_ready(serve),
                Asked::Rest => self.disarm(),
            }
        }
        self.heard = rest.to_vec();
        Ok(true)
    }

    /// Ends earlier guards and arms the watchdog, and replies how that went.
    fn get_ready(&mut self, serve: Serve) {
        let ask = serve.ask;
        let ready = self.relieve().map_err(|error| report::chain(&error));
        reply(&match ready.and_then(|()| self.arm(serve)) {
            Ok(()) => Reply::Ready(ask),
            Err(reason) => Reply::Refused(ask, reason),
        });
        self.release();
    }

    /// Disarms watchdogs that earlier guards have left and that this guard does not kick. They would reset a healthy machine.
    fn release(&mut self) {
        for device in std::mem::take(&mut self.left) {
            if self.watchdog.as_ref().is_some_and(|own| own.is(&device)) {
                continue;
            }
            if let Err(error) = Watchdog::release(&device) {
                note(&error);
            }
        }
    }

    fn relieve(&mut self) -> Result<(), GuardError> {
        if !self.relieved {
            self.left = others::relieve(&self.arguments.data_dir)?;
            self.relieved = true;
        }
        Ok(())
    }

    fn arm(&mut self, serve: Serve) -> Result<(), String> {
        let required = match self.arguments.watchdog {
            WatchdogMode::Off => return Ok(()),
            WatchdogMode::Automatic => false,
            WatchdogMode::Required => true,
        };
        if self.watchdog.is_some() {
            return Ok(());
        }
        match Watchdog::arm(&self.arguments.device, serve.node_timeout, required) {
            Ok((watchdog, doubt)) => {
                self.watchdog = Some(watchdog);
                self.watch.kicked(Some(self.clock.now()));
                if let Some(doubt) = doubt {
                    reply(&Reply::Note(report::chain(&doubt)));
                }
                Ok(())
            }
            Err(error) if required => Err(report::chain(&error)),
            Err(error) => {
                reply(&Reply::Note(format!("no watchdog is used: {}", report::chain(&error))));
                Ok(())
            }
        }
    }

    fn kick(&mut self) {
        let kicked = self.watchdog.as_mut().map(Watchdog::kick);
        if let Some(Err(error)) = kicked {
            // A watchdog that is not kicked resets the machine. Trying again does no harm.
            note(&error);
        }
        self.watch.kicked(Some(self.clock.now()));
    }

    /// Disarms the watchdog: there is no process of a primary any more.
    fn disarm(&mut self) {
        if let Some(watchdog) = self.watchdog.take()
            && let Err(error) = watchdog.disarm()
        {
            note(&error);
        }
        self.watch.kicked(None);
    }

    /// Ends the database if it is, or may be, a primary.
    fn end(&mut self, fencing: Duration) {
        let Arguments { data_dir, programs, .. } = &self.arguments;
        match self.runtime.block_on(end_primary(data_dir, programs, fencing)) {
            Ok(ended) => {
                let dir = data_dir.display().to_string();
                self.disarm();
                self.watch.ended();
                if ended {
                    say(&format!("the lease is over: the guard has ended the primary in {dir}"));
                }
            }
            Err(error) => {
                self.watch.failed(self.clock.now());
                say(&format!("the guard could not end the primary: {}", report::chain(&error)));
            }
        }
    }
}

/// Keeps SIGTERM from ending the process: the returned socket gets a byte for each one.
fn terminations() -> std::io::Result<UnixStream> {
    let (reader, mut writer) = UnixStream::pair()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    drop(entered);
    // In a thread, since the guard waits in its own poll.
    let forward = async move {
        while signals.recv().await.is_some() {
            let _ = writer.write_all(b"t");
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(forward))?;
    Ok(reader)
}

/// Replies to the daemon, unless it is gone.
fn reply(reply: &Reply) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(reply.encode().as_bytes()).and_then(|()| stdout.flush());
}

fn note(error: &WatchdogError) {
    reply(&Reply::Note(report::chain(error)));
}

/// Writes a line for people into the daemon's log.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "qluster-server: {text}");
}
