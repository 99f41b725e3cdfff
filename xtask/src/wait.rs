//! Waiting for a condition, with a deadline. If that passes, the error says what was missing.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::interrupt;

/// What a check of a condition found.
pub(crate) enum Look<T> {
    /// It holds.
    Done(T),
    /// Not yet, and what is missing.
    NotYet(String),
}

/// Checks every `interval` until the condition `what` holds, for `limit` at most. If a check returns an error, the
/// condition cannot come true any more, and the wait ends.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    interval: Duration,
    mut look: impl FnMut() -> Result<Look<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        interrupt::check()?;
        let missing = match look()? {
            Look::Done(value) => return Ok(value),
            Look::NotYet(missing) => missing,
        };
        if start.elapsed() >= limit {
            bail!("waited {} s until {what}; last seen: {missing}", limit.as_secs_f64());
        }
        std::thread::sleep(interval);
    }
}

/// Sleeps, unless it is interrupted.
pub(crate) fn pause(time: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(50).min(time.saturating_sub(start.elapsed())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn it_ends_with_what_the_look_found() {
        let mut looks = 0;
        let found = until("three looks", Duration::from_secs(5), SHORT, || {
            looks += 1;
            Ok(if looks < 3 { Look::NotYet("less".into()) } else { Look::Done(looks) })
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn past_the_deadline_it_says_what_was_missing() {
        let error = until("it rains", SHORT, SHORT, || Ok(Look::<()>::NotYet("sunshine".into()))).unwrap_err();
        assert_eq!(error.to_string(), "waited 0.001 s until it rains; last seen: sunshine");
    }
}
