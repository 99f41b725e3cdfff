//! The clock for leases.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A clock that counts from an arbitrary, fixed instant. It never goes back. It counts the time in which the machine was
/// suspended, too, so that a lease does not outlive a pause of a virtual machine.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Instant + Send + Sync>,
    time_of_day: fn(Instant) -> SystemTime,
}

/// An instant of a [`Clock`]: the time since its fixed instant.
pub type Instant = Duration;

impl Clock {
    /// The machine's clock (CLOCK_BOOTTIME).
    pub fn boottime() -> Self {
        let now = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            // Neither part is ever negative: the clock starts at 0 when the machine boots.
            Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
        };
        Self { now: Arc::new(now), time_of_day: |_| SystemTime::now() }
    }

    /// A simulated clock that shows what `now` returns. Its time of day began in 1970.
    pub fn new(now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self { now: Arc::new(now), time_of_day: |now| SystemTime::UNIX_EPOCH + now }
    }

    /// The present instant.
    pub fn now(&self) -> Instant {
        (self.now)()
    }

    /// The present time of day, in UTC, as text (RFC 3339). It is for people: nothing is decided by it.
    pub(crate) fn time_of_day(&self) -> String {
        humantime::format_rfc3339_millis((self.time_of_day)(self.now())).to_string()
    }
}
