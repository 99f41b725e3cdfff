//! Keeping the monitor from starting PostgreSQL.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::os::lock::lock;

/// Whether PostgreSQL must not be started, except by an operation.
#[derive(Default)]
pub(crate) struct RestartHold {
    /// Whether it was stopped on purpose.
    held: AtomicBool,
    /// Until when it is not started either.
    until: Mutex<Option<Instant>>,
}

impl RestartHold {
    /// Keeps PostgreSQL from being started, until `release`.
    pub(crate) fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    /// Allows it to be started.
    pub(crate) fn release(&self) {
        self.held.store(false, Ordering::SeqCst);
    }

    /// Allows it to be started after this time.
    pub(crate) fn release_in(&self, time: Duration) {
        *lock(&self.until) = Some(Instant::now() + time);
        self.release();
    }

    /// Whether it must not be started now.
    pub(crate) fn is_held(&self) -> bool {
        let until = *lock(&self.until);
        self.held.load(Ordering::SeqCst) || until.is_some_and(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_ends_when_it_is_released_and_not_before() {
        let hold = RestartHold::default();
        assert!(!hold.is_held());
        hold.hold();
        assert!(hold.is_held());
        hold.release_in(Duration::from_secs(60));
        assert!(hold.is_held());
        hold.release();
        assert!(hold.is_held(), "the time has not passed");
        hold.release_in(Duration::ZERO);
        assert!(!hold.is_held());
    }
}
