//! The agent's side of the guard: keeps one running, and tells it until when the database may serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use qluster_consensus::env::clock::{Clock, Instant};
use tokio::sync::{Notify, watch};

use super::child::{Event, Process};
use super::error::GuardError;
use super::frame::{Frame, Reply, Serve};
use super::{GuardConfig, WatchdogMode};

/// A promotion waits so long for the guard. Starting one takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two starts of a guard that keeps ending.
const RESTART: Duration = Duration::from_secs(1);

/// A guard that was told nothing yet, by an agent whose predecessor led, is told the first deadline this soon: that of
/// the earlier guard comes nearer.
const FIRST: Duration = Duration::from_millis(20);

/// The guard of a database, as its agent sees it. Clones share it.
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

/// The lease of this node.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// Until when the node leads for sure, on CLOCK_BOOTTIME; none where it does not, or not any more.
    pub end: Option<Instant>,
    /// How long a fence may take.
    pub fencing: Duration,
    /// The cluster's node-timeout.
    pub node_timeout: Duration,
}

/// What came of the last ask of the guard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// There is none; why.
    Away(String),
    /// It has nothing to guard, or was asked and has not answered.
    Waiting,
    /// It is ready, as that promotion asked.
    Ready(u64),
    /// It lacks what is required.
    Refused(u64, String),
}

/// Makes the database one to guard, as long as this lives: a promotion is under way.
#[must_use]
pub struct Hold(Guard);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.holds.fetch_sub(1, Ordering::SeqCst);
        self.0.0.wake.notify_one();
    }
}

impl Guard {
    /// A guard that does not run yet.
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

    /// Waits until the guard is there, knows a deadline, and has the watchdog armed where one is used. Fails where that
    /// takes longer than three seconds, or where the watchdog is required and cannot be used.
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
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(state)) => match &*state {
                State::Refused(_, reason) => Err(GuardError::Refused(reason.clone())),
                _ => Ok(hold),
            },
            _ => {
                let state = match &*inner.state.borrow() {
                    State::Away(reason) => reason.clone(),
                    _ => "it has not answered, or this node has no lease".into(),
                };
                Err(GuardError::NotReady { within: PATIENCE, state })
            }
        }
    }

    /// Leaves the database to the guard as it is: the agent ends. What the guard was told last counts.
    pub fn leave(&self) {
        self.0.stop.send_replace(true);
    }

    /// Keeps a guard running and tells it until when the database may serve, until [`Guard::leave`]. `leads` tells
    /// whether the database is, or may be, a primary.
    pub async fn run(self, lease: impl Fn() -> Lease, leads: impl Fn() -> bool) {
        let mut stop = self.0.stop.subscribe();
        let mut noted = None;
        loop {
            tokio::select! {
                // The sender lives as long as this.
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.keep(&lease, &leads, &mut noted) => {}
            }
        }
    }

    /// Starts a guard, and attends to it until it is none any more.
    async fn keep(&self, lease: &impl Fn() -> Lease, leads: &impl Fn() -> bool, noted: &mut Option<String>) {
        let inner = &self.0;
        let begun = tokio::time::Instant::now();
        let reason = match Process::start(&inner.config) {
            Ok(mut process) => {
                tracing::debug!(pid = process.pid(), "the guard is there");
                inner.state.send_replace(State::Waiting);
                let reason = self.attend(&mut process, lease, leads, noted).await;
                process.kill();
                reason
            }
            Err(error) => crate::report::chain(&error),
        };
        tracing::warn!(reason, "there is no guard any more: another one is started");
        inner.state.send_replace(State::Away(reason));
        if begun.elapsed() < RESTART {
            tokio::time::sleep(RESTART).await;
        }
    }

    /// Tells a guard what it has to know, and answers why it is to be replaced.
    async fn attend(
        &self,
        process: &mut Process,
        lease: &impl Fn() -> Lease,
        leads: &impl Fn() -> bool,
        noted: &mut Option<String>,
    ) -> String {
        let inner = &self.0;
        let clock = Clock::boottime();
        // As good as told.
        let mut told = Frame::Rest;
        loop {
            // The lease is looked at after it: whoever counts up has one.
            let ask = inner.asks.load(Ordering::SeqCst);
            let serves = inner.holds.load(Ordering::SeqCst) > 0 || leads();
            let lease = lease();
            if let Some(frame) = news(serves, &lease, ask, told, clock.now()) {
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
                    Frame::Rest => tokio::time::sleep(FIRST).await,
                    // It knows of a deadline that is less than half a fence old, so the agent's own fence comes first:
                    // half of what was told, which may be of a lease of before node-timeout was raised.
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
                // On most machines there is none, and nobody asked for one.
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

/// What a guard has to be told, where that is not what it was told last.
fn news(serves: bool, lease: &Lease, ask: u64, told: Frame, now: Instant) -> Option<Frame> {
    let Lease { end, fencing, node_timeout } = *lease;
    let serve = |until| Frame::Serve(Serve { until, fencing, node_timeout, ask });
    match (told, end) {
        (Frame::Rest, _) if !serves => None,
        (Frame::Serve(_), _) if !serves => Some(Frame::Rest),
        // An agent that has just started has not proven its lease yet. Its predecessor's guard knows the end of it.
        (Frame::Rest, None) => None,
        (Frame::Rest, Some(end)) => Some(serve(end)),
        (Frame::Serve(before), Some(end)) => (before.until != end || before.ask != ask).then(|| serve(end)),
        // It was handed over, or lost: somebody else may be elected before the end that was told. The agent fences now.
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
        let lease = |end: u64| Lease { end: Some(at(end)), fencing: at(250), node_timeout: at(1000) };
        let none = Lease { end: None, ..lease(0) };
        let rest = Frame::Rest;
        for (serves, lease, ask, told, expected) in [
            // A standby has nothing to guard, whoever leads.
            (false, lease(6000), 0, rest, None),
            (false, none, 0, rest, None),
            // A promotion, or an agent that has come back within its lease.
            (true, lease(6000), 1, rest, Some(serve(6000, 1))),
            (true, none, 0, rest, None),
            // The lease goes on.
            (true, lease(6000), 1, serve(6000, 1), None),
            (true, lease(6200), 1, serve(6000, 1), Some(serve(6200, 1))),
            (true, lease(6000), 2, serve(6000, 1), Some(serve(6000, 2))),
            // node-timeout is less now.
            (true, lease(5800), 1, serve(6000, 1), Some(serve(5800, 1))),
            // The lease is gone: there is the time of a fence left, or less.
            (true, none, 1, serve(6000, 1), Some(serve(5250, 1))),
            (true, none, 1, serve(5250, 1), None),
            (true, none, 1, serve(4000, 1), None),
            // The database is no primary any more.
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
        let lease = || Lease { end: Some(at(u64::MAX)), fencing: at(250), node_timeout: at(1000) };
        let running = tokio::spawn(guard.clone().run(lease, || false));
        let error = guard.hold().await.err().unwrap().to_string();
        assert!(error.contains("could not be started"), "{error}");
        guard.leave();
        running.await.unwrap();
    }
}
