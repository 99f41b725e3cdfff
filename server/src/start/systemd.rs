//! What systemd is told of the daemon: that it is ready, that it stops, and, again and again, that it is not stuck.
//!
//! Nothing of it happens where `NOTIFY_SOCKET` is not set.

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

/// Feeds the watchdog of systemd, where there is one; ends never. A node that is stuck feeds it no more: `look` is to
/// take the way that requests take.
///
/// That watchdog ends the agent only. It has nothing to do with the one that resets the machine.
pub(crate) async fn feed_watchdog(look: impl Fn()) {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        look();
        // On a thread of its own: it waits where systemd does not read.
        let _ = tokio::task::spawn_blocking(|| tell(&[NotifyState::Watchdog])).await;
        tokio::time::sleep(pause(timeout)).await;
    }
}

/// Between two signs of life, of which one may come late.
fn pause(timeout: Duration) -> Duration {
    timeout / 3
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told how the node is");
    }
}
