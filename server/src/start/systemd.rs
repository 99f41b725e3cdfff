//! What systemd hears from the daemon: that it is ready, that it stops, and, again and again, that it is not stuck.
//!
//! Nothing of it happens if `NOTIFY_SOCKET` is not set.

use std::convert::Infallible;
use std::time::Duration;

use sd_notify::NotifyState;

/// The node has started; `status` is shown by `systemctl status`.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The node stops.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog of systemd, if there is one, and never returns. `probe` takes the way that requests take, so that
/// a node that is stuck does not feed it.
///
/// That watchdog ends the daemon only. It has nothing to do with the one that resets the machine.
pub(crate) async fn feed_watchdog(probe: impl Fn()) -> Infallible {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        probe();
        // On a thread of its own: it blocks if systemd does not read.
        let _ = tokio::task::spawn_blocking(|| tell(&[NotifyState::Watchdog])).await;
        tokio::time::sleep(pause(timeout)).await;
    }
}

/// The time between two signs of life, one of which may come late.
fn pause(timeout: Duration) -> Duration {
    timeout / 3
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be notified");
    }
}
