//! Steps of the machine's clock, which are taken back.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// The clock, set wrong on purpose. When this is dropped, it is right again: the time that has passed is taken from a
/// clock that nobody sets.
pub(crate) struct Step {
    real: Duration,
    monotonic: Duration,
}

impl Step {
    /// Steps the clock by this many seconds.
    pub(crate) fn by(seconds: i64) -> Result<Self> {
        let step = Self { real: now(ClockId::Realtime), monotonic: now(ClockId::Monotonic) };
        let amount = Duration::from_secs(seconds.unsigned_abs());
        let wrong = if seconds < 0 { step.real.saturating_sub(amount) } else { step.real + amount };
        set(wrong).context("stepping the clock")?;
        Ok(step)
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let passed = now(ClockId::Monotonic).saturating_sub(self.monotonic);
        // A process that could step it can step it back.
        let _ = set(self.real + passed);
    }
}

/// Whether this process may set the clock. It tries that with the current time.
pub(crate) fn may_step() -> bool {
    set(now(ClockId::Realtime)).is_ok()
}

fn now(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn set(time: Duration) -> rustix::io::Result<()> {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() })
}
