//! Waiting for what a cluster does in the background: always for a condition, and never longer than a deadline.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Long for what takes a fraction of a second, so that only a hang runs into it.
pub const WAIT_DEADLINE: Duration = Duration::from_secs(20);

/// How often a condition is looked at. Often, since some conditions check what may hold at no instant.
const POLL: Duration = Duration::from_millis(2);

/// Looks again and again until what is waited for is there (`Ok`), and returns it.
///
/// Fails after `deadline`, and then names `what` was waited for and what was seen last (`Err`).
pub async fn until<T, S: Debug>(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> Result<T, S>) -> T {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => {
                assert!(begun.elapsed() < deadline, "not within {deadline:?}: {what}; what was seen last: {seen:#?}");
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// For `until`: whether a condition holds, and if not, what was `seen`.
pub fn holds<S>(condition: bool, seen: S) -> Result<(), S> {
    if condition { Ok(()) } else { Err(seen) }
}
