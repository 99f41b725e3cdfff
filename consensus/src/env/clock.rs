//! Time as leases need it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A clock: time since an arbitrary, fixed instant. It never goes back, and it counts the time in which the machine
/// was suspended, so that a lease does not outlive a pause of a virtual machine.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Instant + Send + Sync>,
    time_of_day: fn(Instant) -> SystemTime,
}

/// An instant of a [`Clock`].
pub type Instant = Duration;

impl Clock {
    /// The machine's clock (CLOCK_BOOTTIME).
    pub fn boottime() -> Self {
        let now = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            // Neither is ever negative: the clock starts at 0 when the machine boots.
            Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
        };
        Self { now: Arc::new(now), time_of_day: |_| SystemTime::now() }
    }

    /// A clock that tells what `now` tells: a simulated one, of a world that began in 1970.
    pub fn new(now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self { now: Arc::new(now), time_of_day: |now| SystemTime::UNIX_EPOCH + now }
    }

    /// The present instant.
    pub fn now(&self) -> Instant {
        (self.now)()
    }

    /// The present time of day, for people: RFC 3339, UTC.
    pub(crate) fn time_of_day(&self) -> String {
        humantime::format_rfc3339_millis((self.time_of_day)(self.now())).to_string()
    }
}
