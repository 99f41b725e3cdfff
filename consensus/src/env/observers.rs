//! Hooks for measurements. Consensus calls them when something happened, with how long it took; it knows no metrics.

use std::sync::OnceLock;
use std::time::Duration;

/// Is called with how long something took.
type Times = Box<dyn Fn(Duration) + Send + Sync>;
/// Is called with the reason why this node became the leader.
type Causes = Box<dyn Fn(&'static str) + Send + Sync>;

/// Why a node becomes the leader: it is the first of its cluster; or the leader before it was not heard any more, handed
/// its lead over, or was this node itself.
pub const CAUSES: [&str; 4] = [BOOTSTRAP, FAILOVER, HANDOVER, RESUMED];

pub(crate) const BOOTSTRAP: &str = "bootstrap";
pub(crate) const FAILOVER: &str = "failover";
pub(crate) const HANDOVER: &str = "handover";
pub(crate) const RESUMED: &str = "resumed";

/// The hooks of a node. Each is set at most once: a hook that is set later is ignored.
#[derive(Default)]
pub(crate) struct Observers {
    pub(crate) commits: Observer<Times>,
    pub(crate) leaderships: Observer<Causes>,
}

/// A hook that may be set.
pub(crate) struct Observer<T>(OnceLock<T>);

impl<T> Observer<T> {
    pub(crate) fn set(&self, hook: T) {
        // The first hook stays.
        let _ = self.0.set(hook);
    }
}

impl Observer<Times> {
    pub(crate) fn took(&self, time: Duration) {
        if let Some(hook) = self.0.get() {
            hook(time);
        }
    }
}

impl Observer<Causes> {
    pub(crate) fn led(&self, cause: &'static str) {
        if let Some(hook) = self.0.get() {
            hook(cause);
        }
    }
}

impl<T> Default for Observer<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> std::fmt::Debug for Observer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.get().is_some() { "Observer(set)" } else { "Observer(none)" })
    }
}

pub(crate) type TimeObserver = Observer<Times>;
