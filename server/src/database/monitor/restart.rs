//! Starting PostgreSQL again after it ended unasked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::database::Postgres;
use crate::database::data_dir::staging::Contents;
use crate::formats::directions::Directions;

/// After running for this long, PostgreSQL does not count as one that keeps ending.
const STABLE_TIME: Duration = Duration::from_secs(60);

/// The pause between two starts: the shortest after the second early end, and the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// When to start PostgreSQL again.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// The pause after the next early end.
    pause: Duration,
    /// Since when it runs.
    started: Option<Instant>,
    /// When it may be started again.
    until: Option<Instant>,
}

impl Backoff {
    /// Notes that it runs.
    pub(super) fn runs(&mut self, now: Instant) {
        self.started.get_or_insert(now);
    }

    /// Notes that it does not run. After a long run it may be started at once. After each short run in a row it has to wait
    /// longer. An end counts once.
    pub(super) fn ended(&mut self, now: Instant) {
        let Some(started) = self.started.take() else { return };
        let young = now.duration_since(started) < STABLE_TIME;
        self.until = Some(now + if young { self.pause } else { Duration::ZERO });
        self.pause = if young { (self.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE) } else { Duration::ZERO };
    }

    /// How long to wait before the next start.
    fn left(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

impl Postgres {
    /// Starts PostgreSQL if it ended unasked, or never ran. `first`: the daemon has just started.
    pub(super) async fn restart(&self, backoff: &mut Backoff, first: bool) {
        let wanted = || !self.restart_hold.is_held() && matches!(self.data_dir.contents(), Ok(Contents::Database(_)));
        if !wanted() || self.data_dir.marks.broken().is_some() {
            *backoff = Backoff::default();
            return;
        }
        let pause = backoff.left(Instant::now());
        if !pause.is_zero() {
            let mut changes = self.status.changes();
            // If an operation has started it, the monitor must watch it at once.
            if self.data_dir.postmaster.pid().is_none() {
                let log = self.data_dir.log.tail();
                self.findings.set_trouble(Some(format!("PostgreSQL keeps ending: {log}")));
                self.observe().await;
                let _ = tokio::time::timeout(pause, changes.changed()).await;
            }
            return;
        }
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return };
        // What was decided meanwhile counts.
        if self.data_dir.postmaster.pid().is_some() || !wanted() {
            return;
        }
        let directions = match self.data_dir.settings.directions() {
            follows @ Directions::Follows(_) if !first => follows,
            _ => Directions::Fenced,
        };
        tracing::warn!(?directions, "PostgreSQL does not run: it is started");
        backoff.started = Some(Instant::now());
        if let Err(error) = self.start(&Arc::new(turn), directions).await {
            self.findings.set_trouble(Some(error.chain()));
            tracing::error!(error = error.chain(), "PostgreSQL could not be started");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_ending_waits_longer_before_each_start() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        let mut run = |time: Duration| {
            backoff.started = Some(now);
            let end = now + time;
            backoff.ended(end);
            let pause = backoff.left(end);
            // Seen a second time, it is the same end.
            backoff.ended(end + pause / 2);
            assert_eq!(backoff.left(end + pause / 2), pause - pause / 2);
            pause
        };
        let pauses: Vec<u128> = (0..9).map(|_| run(STABLE_TIME / 2).as_millis()).collect();
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(run(STABLE_TIME), Duration::ZERO);
    }
}
