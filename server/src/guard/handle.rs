//! The daemon's side of the guard: keeps a guard process running, and sends it the deadline of the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use qluster_consensus::env::clock::{Clock, Instant};
use tokio::sync::{Notify, watch};

use super::child::{Event, Process};
use super::error::GuardError;
use super::frame::{Frame, Reply, Serve};
use super::{GuardConfig, WatchdogMode};

/// How long a promotion waits for the guard. Starting a guard takes milliseconds.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// The pause between two starts of a guard that keeps ending.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// How often the daemon looks for the first deadline for a new guard, when the database is a primary already (an earlier
/// daemon led). It is short, since the deadline of the earlier guard comes nearer.
const FIRST_DEADLINE_PERIOD: Duration = Duration::from_millis(20);

/// The guard of a database, as the daemon sees it. Clones share it.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    config: GuardConfig,
    /// Promotions under way.
    holds: AtomicUsize,
    /// Counts the promotions.
    asks: AtomicU64,
    wake: Notify,
    state: watch::Sender<State>,
    stop: watch::Sender<bool>,
}

/// Until when the database of this node may serve as a primary.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The end of the node's lease, on CLOCK_BOOTTIME. None if it has no lease.
    pub until: Option<Instant>,
    /// How long fencing the database may take.
    pub fencing: Duration,
    /// The cluster's node-timeout.
    pub node_timeout: Duration,
}

/// What the guard answered last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// There is no guard. The text says why.
    Away(String),
    /// It has nothing to guard, or has not answered yet.
    Waiting,
    /// It is ready, as the promotion with this number asked.
    Ready(u64),
    /// It lacks something that is required. The text says what.
    Refused(u64, String),
}

/// A promotion is under way. As long as this exists, the guard treats the database as a primary.
#[must_use]
pub struct Hold(Guard);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.holds.fetch_sub(1, Ordering::SeqCst);
        self.0.0.wake.notify_one();
    }
}

impl Guard {
    /// A guard that does not run yet. [`Guard::run`] starts it.
    pub fn new(config: GuardConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            holds: AtomicUsize::new(0),
            asks: AtomicU64::new(0),
            wake: Notify::new(),
            state: watch::Sender::new(State::Away("it was not started yet".into())),
            stop: watch::Sender::new(false),
        }))
    }

    /// Waits until the guard runs, knows a deadline, and has armed the watchdog if one is used.
    ///
    /// # Errors
    ///
    /// If that takes longer than three seconds, or if the watchdog is required and cannot be used.
    pub async fn hold(&self) -> Result<Hold, GuardError> {
        let inner = &self.0;
        let mut state = inner.state.subscribe();
        let ask = inner.asks.fetch_add(1, Ordering::SeqCst) + 1;
        inner.holds.fetch_add(1, Ordering::SeqCst);
        let hold = Hold(self.clone());
        inner.wake.notify_one();
        let answer = state.wait_for(|state| match state {
            State::Ready(answered) | State::Refused(answered, _) => *answered >= ask,
            State::Away(_) | State::Waiting => false,
        });
        match tokio::time::timeout(READY_TIMEOUT, answer).await {
            Ok(Ok(state)) => match &*state {
                State::Refused(_, reason) => Err(GuardError::Refused(reason.clone())),
                _ => Ok(hold),
            },
            _ => {
                let state = match &*inner.state.borrow() {
                    State::Away(reason) => reason.clone(),
                    _ => "it has not answered, or this node has no lease".into(),
                };
                Err(GuardError::NotReady { within: READY_TIMEOUT, state })
            }
        }
    }

    /// Ends [`Guard::run`] and leaves the guard as it is, since the daemon ends. The last deadline counts.
    pub fn leave(&self) {
        self.0.stop.send_replace(true);
    }

    /// Keeps a guard process running and sends it the deadline, until [`Guard::leave`]. `leads` returns whether the
    /// database is, or may be, a primary.
    pub async fn run(self, deadline: impl Fn() -> Deadline, leads: impl Fn() -> bool) {
        let mut stop = self.0.stop.subscribe();
        let mut noted = None;
        loop {
            tokio::select! {
                // The sender lives as long as this.
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.keep(&deadline, &leads, &mut noted) => {}
            }
        }
    }

    /// Starts a guard process, and attends to it until it has to be replaced.
    async fn keep(&self, deadline: &impl Fn() -> Deadline, leads: &impl Fn() -> bool, noted: &mut Option<String>) {
        let inner = &self.0;
        let begun = tokio::time::Instant::now();
        let reason = match Process::start(&inner.config) {
            Ok(mut process) => {
                tracing::debug!(pid = process.pid(), "the guard has started");
                inner.state.send_replace(State::Waiting);
                let reason = self.attend(&mut process, deadline, leads, noted).await;
                process.kill();
                reason
            }
            Err(error) => crate::report::chain(&error),
        };
        tracing::warn!(reason, "the guard is gone: another one is started");
        inner.state.send_replace(State::Away(reason));
        if begun.elapsed() < RESTART_PAUSE {
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    /// Sends a guard what it has to know. Returns why the guard must be replaced.
    async fn attend(
        &self,
        process: &mut Process,
        deadline: &impl Fn() -> Deadline,
        leads: &impl Fn() -> bool,
        noted: &mut Option<String>,
    ) -> String {
        let inner = &self.0;
        let clock = Clock::boottime();
        // A new guard knows that.
        let mut told = Frame::Rest;
        loop {
            // Read before the deadline: a promotion that counts up has a lease.
            let ask = inner.asks.load(Ordering::SeqCst);
            let serves = inner.holds.load(Ordering::SeqCst) > 0 || leads();
            let deadline = deadline();
            if let Some(frame) = news(serves, &deadline, ask, told, clock.now()) {
                if let Err(error) = process.tell(&frame) {
                    return crate::report::chain(&error);
                }
                if frame == Frame::Rest {
                    inner.state.send_replace(State::Waiting);
                }
                told = frame;
            }
            let pause = async {
                match told {
                    _ if !serves => std::future::pending().await,
                    Frame::Rest => tokio::time::sleep(FIRST_DEADLINE_PERIOD).await,
                    // The deadline that the guard knows is at most half a fencing time old, so the daemon's own fencing comes
                    // first. The fencing time that was sent counts: the lease may be from before node-timeout was raised.
                    Frame::Serve(serve) => tokio::time::sleep(serve.fencing / 2).await,
                }
            };
            tokio::select! {
                () = pause => {}
                () = inner.wake.notified() => {}
                event = process.event() => match event {
                    Event::Reply(reply) => self.hear(reply, noted),
                    Event::Ended(status) => return status,
                },
            }
        }
    }

    fn hear(&self, reply: Reply, noted: &mut Option<String>) {
        match reply {
            Reply::Ready(ask) => drop(self.0.state.send_replace(State::Ready(ask))),
            Reply::Refused(ask, reason) => {
                tracing::warn!(reason, "the guard is not ready");
                self.0.state.send_replace(State::Refused(ask, reason));
            }
            Reply::Note(text) if noted.as_ref() == Some(&text) => {}
            Reply::Note(text) => {
                // Most machines have no watchdog, and nobody asked for one.
                if self.0.config.watchdog.mode == WatchdogMode::Automatic {
                    tracing::info!(reason = text, "the watchdog");
                } else {
                    tracing::warn!(reason = text, "the watchdog");
                }
                *noted = Some(text);
            }
        }
    }
}

/// The frame that a guard needs next. None if it knows everything.
fn news(serves: bool, deadline: &Deadline, ask: u64, told: Frame, now: Instant) -> Option<Frame> {
    let Deadline { until, fencing, node_timeout } = *deadline;
    let serve = |until| Frame::Serve(Serve { until, fencing, node_timeout, ask });
    match (told, until) {
        (Frame::Rest, _) if !serves => None,
        (Frame::Serve(_), _) if !serves => Some(Frame::Rest),
        // A daemon that has just started has not proven its lease yet. The guard of the daemon before knows the deadline.
        (Frame::Rest, None) => None,
        (Frame::Rest, Some(until)) => Some(serve(until)),
        (Frame::Serve(before), Some(until)) => (before.until != until || before.ask != ask).then(|| serve(until)),
        // The lease was handed over, or lost: another node may be elected before the deadline. The daemon fences now.
        (Frame::Serve(before), None) => {
            let until = now + fencing.min(before.fencing);
            (until < before.until).then(|| serve(until))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Duration::from_millis(millis)
    }

    fn serve(until: u64, ask: u64) -> Frame {
        Frame::Serve(Serve { until: at(until), fencing: at(250), node_timeout: at(1000), ask })
    }

    #[test]
    fn a_guard_is_told_what_it_does_not_know() {
        let lease = |end: u64| Deadline { until: Some(at(end)), fencing: at(250), node_timeout: at(1000) };
        let none = Deadline { until: None, ..lease(0) };
        let rest = Frame::Rest;
        for (serves, lease, ask, told, expected) in [
            // A standby has nothing to guard, whoever leads.
            (false, lease(6000), 0, rest, None),
            (false, none, 0, rest, None),
            // A promotion, or a daemon that was restarted within its lease.
            (true, lease(6000), 1, rest, Some(serve(6000, 1))),
            (true, none, 0, rest, None),
            // The lease goes on.
            (true, lease(6000), 1, serve(6000, 1), None),
            (true, lease(6200), 1, serve(6000, 1), Some(serve(6200, 1))),
            (true, lease(6000), 2, serve(6000, 1), Some(serve(6000, 2))),
            // node-timeout was lowered.
            (true, lease(5800), 1, serve(6000, 1), Some(serve(5800, 1))),
            // The lease is gone: the time of a fence is left, or less.
            (true, none, 1, serve(6000, 1), Some(serve(5250, 1))),
            (true, none, 1, serve(5250, 1), None),
            (true, none, 1, serve(4000, 1), None),
            // The database is not a primary any more.
            (false, lease(6000), 1, serve(6000, 1), Some(rest)),
            (false, none, 1, serve(6000, 1), Some(rest)),
        ] {
            let said = news(serves, &lease, ask, told, at(5000));
            assert_eq!(said, expected, "{serves} {lease:?} {ask} {told:?}");
        }
    }

    #[tokio::test]
    async fn without_a_guard_nobody_gets_ready() {
        let config = GuardConfig {
            program: "/absent".into(),
            data_dir: "/".into(),
            run_dir: "/".into(),
            programs: Vec::new(),
            watchdog: Default::default(),
        };
        let guard = Guard::new(config);
        let lease = || Deadline { until: Some(at(u64::MAX)), fencing: at(250), node_timeout: at(1000) };
        let running = tokio::spawn(guard.clone().run(lease, || false));
        let error = guard.hold().await.err().unwrap().to_string();
        assert!(error.contains("could not be started"), "{error}");
        guard.leave();
        running.await.unwrap();
    }
}
