//! What a guard has to do, decided by the frames that it got and the time: pure functions.

use std::time::Duration;

use qluster_consensus::env::clock::Instant;

use super::frame::{Frame, Serve};

/// The time between two kicks of the watchdog. Several kicks fit into the shortest timeout of a watchdog, a second.
const KICK_PERIOD: Duration = Duration::from_millis(250);

/// The pause after which the guard tries again to end a database that it could not end.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What a guard knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// The last deadline. None while there is nothing to guard.
    serve: Option<Serve>,
    /// When the watchdog is kicked next. None while it is not armed.
    kick_at: Option<Instant>,
    /// Whether the daemon is gone.
    alone: bool,
    /// The number of the promotion that got the last reply.
    answered: Option<u64>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait for the daemon, and not longer than until this instant, if there is one.
    Wait(Option<Instant>),
    /// Kick the watchdog.
    Kick,
    /// The deadline has passed: end the database within this time, if it may be a primary.
    End(Duration),
    /// The daemon is gone, and there is nothing to guard.
    Exit,
}

/// What a frame asks the guard to do at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    /// Get ready to guard, and reply.
    Ready(Serve),
    /// Disarm the watchdog: the database is not a primary any more.
    Rest,
}

impl Watch {
    /// Takes in a frame of the daemon.
    pub(super) fn hear(&mut self, frame: Frame) -> Asked {
        match frame {
            Frame::Rest => {
                self.serve = None;
                self.answered = None;
                Asked::Rest
            }
            Frame::Serve(serve) => {
                self.serve = Some(serve);
                if self.answered.replace(serve.ask) == Some(serve.ask) { Asked::Nothing } else { Asked::Ready(serve) }
            }
        }
    }

    /// The daemon is gone. Its last deadline still counts.
    pub(super) fn daemon_gone(&mut self) {
        self.alone = true;
    }

    /// The guard got a SIGTERM. Whoever sends it to all of the daemon's processes would leave nobody to end the database or
    /// to kick the watchdog. So the deadline is now.
    pub(super) fn terminate(&mut self, now: Instant) {
        self.alone = true;
        if let Some(serve) = &mut self.serve {
            serve.until = serve.until.min(now);
        }
    }

    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    /// The watchdog was kicked at this instant, or (None) is not armed any more.
    pub(super) fn kicked(&mut self, at: Option<Instant>) {
        self.kick_at = at.map(|at| at + KICK_PERIOD);
    }

    /// The database was ended, or was not a primary.
    pub(super) fn ended(&mut self) {
        self.serve = None;
        self.answered = None;
    }

    /// The database could not be ended.
    pub(super) fn failed(&mut self, now: Instant) {
        if let Some(serve) = &mut self.serve {
            serve.until = now + RETRY_PAUSE;
        }
        // The watchdog is only kicked before the deadline.
        self.kick_at = None;
    }

    /// Decides what to do next.
    pub(super) fn step(&self, now: Instant) -> Step {
        match (&self.serve, self.kick_at) {
            (None, _) if self.alone => Step::Exit,
            (None, _) => Step::Wait(None),
            (Some(serve), _) if now >= serve.until => Step::End(serve.fencing),
            (Some(_), Some(kick_at)) if now >= kick_at => Step::Kick,
            (Some(serve), kick_at) => Step::Wait(Some(kick_at.map_or(serve.until, |at| at.min(serve.until)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Duration::from_millis(millis)
    }

    fn serve(until: u64, ask: u64) -> Serve {
        Serve { until: at(until), fencing: at(250), node_timeout: at(1000), ask }
    }

    /// A guard that was told to let the database serve until 2000, with the watchdog kicked at 1000.
    fn guarding() -> Watch {
        let mut watch = Watch::default();
        watch.hear(Frame::Serve(serve(2000, 1)));
        watch.kicked(Some(at(1000)));
        watch
    }

    #[test]
    fn the_database_ends_with_its_lease_and_the_watchdog_is_kicked_no_longer() {
        let without = Watch { kick_at: None, ..guarding() };
        let alone = Watch { alone: true, ..guarding() };
        for (watch, now, expected) in [
            (guarding(), 1100, Step::Wait(Some(at(1250)))),
            (guarding(), 1250, Step::Kick),
            (guarding(), 1999, Step::Kick),
            (guarding(), 2000, Step::End(at(250))),
            (guarding(), 9000, Step::End(at(250))),
            (without.clone(), 1999, Step::Wait(Some(at(2000)))),
            (without, 2000, Step::End(at(250))),
            // That the daemon is gone changes nothing before the deadline.
            (alone.clone(), 1999, Step::Kick),
            (alone, 2000, Step::End(at(250))),
            (Watch::default(), 9000, Step::Wait(None)),
            (Watch { alone: true, ..Watch::default() }, 0, Step::Exit),
        ] {
            assert_eq!(watch.step(at(now)), expected, "{watch:?} at {now}");
        }
    }

    #[test]
    fn a_guard_that_is_to_go_ends_the_database_first() {
        let mut watch = guarding();
        watch.terminate(at(1100));
        assert_eq!(watch.step(at(1100)), Step::End(at(250)));
        watch.failed(at(1200));
        assert_eq!(watch.step(at(1300)), Step::Wait(Some(at(2200))));
        assert_eq!(watch.step(at(2200)), Step::End(at(250)));
        watch.ended();
        assert_eq!(watch.step(at(2300)), Step::Exit);
        let mut idle = Watch::default();
        idle.terminate(at(0));
        assert_eq!(idle.step(at(0)), Step::Exit);
    }

    #[test]
    fn what_was_said_last_counts() {
        let mut watch = guarding();
        watch.hear(Frame::Serve(serve(3000, 1)));
        watch.kicked(Some(at(2000)));
        assert_eq!(watch.step(at(2100)), Step::Wait(Some(at(2250))));
        // Also an earlier one: a lease that was handed over is over.
        watch.hear(Frame::Serve(serve(2050, 1)));
        assert_eq!(watch.step(at(2100)), Step::End(at(250)));
        watch.hear(Frame::Rest);
        assert_eq!(watch.step(at(9000)), Step::Wait(None));
    }

    #[test]
    fn a_guard_gets_ready_once_for_each_promotion() {
        let mut watch = Watch::default();
        for (frame, expected) in [
            (Frame::Rest, Asked::Rest),
            (Frame::Serve(serve(1000, 0)), Asked::Ready(serve(1000, 0))),
            (Frame::Serve(serve(2000, 0)), Asked::Nothing),
            (Frame::Serve(serve(2000, 1)), Asked::Ready(serve(2000, 1))),
            (Frame::Rest, Asked::Rest),
            (Frame::Serve(serve(3000, 1)), Asked::Ready(serve(3000, 1))),
        ] {
            assert_eq!(watch.hear(frame), expected, "{frame:?}");
        }
        watch.ended();
        assert_eq!(watch.hear(Frame::Serve(serve(4000, 1))), Asked::Ready(serve(4000, 1)));
    }

    #[test]
    fn a_database_that_does_not_end_is_ended_again_and_not_covered_by_kicks() {
        let mut watch = guarding();
        watch.failed(at(2500));
        assert_eq!(watch.step(at(2600)), Step::Wait(Some(at(3500))));
        assert_eq!(watch.step(at(3500)), Step::End(at(250)));
        watch.ended();
        watch.daemon_gone();
        assert_eq!(watch.step(at(3500)), Step::Exit);
    }
}
