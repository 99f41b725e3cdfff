//! The status that was published last, and which looks at the database are out of date.

use qluster_consensus::protocol::database::{DatabaseRole, DatabaseStatus};
use tokio::sync::watch;

/// The published status of the database.
pub(crate) struct Published {
    status: watch::Sender<DatabaseStatus>,
    /// Counts the changes of the database. A look that began before a change is out of date.
    epoch: watch::Sender<u64>,
}

impl Published {
    pub(crate) fn new(role: DatabaseRole) -> Self {
        Self { status: watch::Sender::new(DatabaseStatus::unknown(role)), epoch: watch::Sender::new(0) }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<DatabaseStatus> {
        self.status.subscribe()
    }

    /// The published status.
    pub(crate) fn get(&self) -> DatabaseStatus {
        self.status.borrow().clone()
    }

    /// The published role.
    pub(crate) fn role(&self) -> DatabaseRole {
        self.status.borrow().role
    }

    /// Changes the published status at once.
    pub(crate) fn modify(&self, change: impl FnOnce(&mut DatabaseStatus)) {
        self.status.send_modify(change);
    }

    /// Says that something changed the database: looks that began before are out of date, and the monitor looks again.
    pub(crate) fn outdate(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// The number of changes up to now.
    pub(crate) fn epoch(&self) -> u64 {
        *self.epoch.borrow()
    }

    /// Notices each change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Publishes what a look has seen that began in this epoch, unless it is out of date.
    pub(crate) fn publish(&self, epoch: u64, seen: DatabaseStatus) {
        self.status.send_if_modified(|status| {
            if self.epoch() != epoch || *status == seen {
                return false;
            }
            *status = seen;
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_began_before_a_change_is_not_published() {
        let published = Published::new(DatabaseRole::Stopped);
        let seen = || DatabaseStatus::unknown(DatabaseRole::Standby);
        let epoch = published.epoch();
        published.outdate();
        published.publish(epoch, seen());
        assert_eq!(published.role(), DatabaseRole::Stopped);
        published.publish(published.epoch(), seen());
        assert_eq!(published.role(), DatabaseRole::Standby);
    }
}
