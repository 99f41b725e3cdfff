//! Why a standby does not stream, as its status shows it. The monitor finds it out (`monitor::missing_wal`).

use std::sync::Mutex;

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::{DatabaseRole, DatabaseStatus, Primary};

use crate::formats::directions::Directions;
use crate::os::lock::lock;

/// WAL that a standby needs: of which primary, and from where on.
pub(crate) type Needed = (Primary, Lsn);

/// Why a standby does not stream.
#[derive(Default)]
pub(crate) struct MissingWal {
    /// Which primary's WAL does not arrive, and why.
    held_up: Mutex<Option<(Primary, String)>>,
    /// The WAL that the primary did not have any more when it was asked last.
    gone: Mutex<Option<Needed>>,
}

impl MissingWal {
    /// Notes which primary's WAL does not arrive, and why; or that nothing is known to hold it up.
    pub(crate) fn set_held_up(&self, held_up: Option<(Primary, String)>) {
        *lock(&self.held_up) = held_up;
    }

    /// Notes which WAL its primary does not have any more.
    pub(crate) fn set_gone(&self, gone: Option<Needed>) {
        *lock(&self.gone) = gone;
    }

    /// Shows in the status why WAL does not arrive, if that is still so.
    pub(super) fn show(&self, status: &mut DatabaseStatus, directions: Directions) {
        let needs = needs(status, directions);
        let held_up = lock(&self.held_up).clone();
        status.hindrance = held_up
            .filter(|(of, _)| needs.as_ref().is_some_and(|(primary, _)| primary == of))
            .map(|(primary, why)| format!("the database of node {}, which it follows, {why}", primary.node));
        let gone = lock(&self.gone).clone();
        let Some((primary, _)) = gone.filter(|gone| needs.as_ref() == Some(gone)) else { return };
        status.lacks_wal = true;
        status.unfit = Some(format!("node {} no longer has the WAL that it needs: it must be cloned", primary.node));
    }
}

/// The WAL that a standby needs and does not stream. None if it needs none.
pub(crate) fn needs(status: &DatabaseStatus, directions: Directions) -> Option<Needed> {
    match directions {
        Directions::Follows(primary) if status.role == DatabaseRole::Standby && !status.streaming => {
            Some((primary, status.lsn?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use qluster_consensus::model::{NodeId, Port, Term};

    use super::*;

    fn primary() -> Primary {
        let port = Port::new(5432).unwrap();
        Primary { node: NodeId(1), term: Term(2), ip: [127, 0, 0, 1].into(), port, timeline: 3 }
    }

    fn standby(streaming: bool, lsn: Option<u64>) -> DatabaseStatus {
        DatabaseStatus { streaming, lsn: lsn.map(Lsn), ..DatabaseStatus::unknown(DatabaseRole::Standby) }
    }

    #[test]
    fn what_was_found_is_shown_while_the_same_wal_is_needed() {
        let follows = || Directions::Follows(primary());
        let missing = MissingWal::default();
        missing.set_held_up(Some((primary(), "is away".into())));
        missing.set_gone(Some((primary(), Lsn(7))));
        for (mut status, directions, hindrance, lacks) in [
            (standby(false, Some(7)), follows(), true, true),
            (standby(false, Some(8)), follows(), true, false),
            (standby(true, Some(7)), follows(), false, false),
            (standby(false, Some(7)), Directions::Fenced, false, false),
        ] {
            missing.show(&mut status, directions);
            assert_eq!((status.hindrance.is_some(), status.lacks_wal), (hindrance, lacks), "{status:?}");
            assert_eq!(status.unfit.is_some(), lacks, "{status:?}");
        }
    }

    #[test]
    fn only_a_standby_that_follows_and_does_not_stream_needs_wal() {
        let follows = || Directions::Follows(primary());
        for (role, streaming, lsn, directions, expected) in [
            (DatabaseRole::Standby, false, Some(7), follows(), Some(7)),
            (DatabaseRole::Standby, false, None, follows(), None),
            (DatabaseRole::Standby, true, Some(7), follows(), None),
            (DatabaseRole::Standby, false, Some(7), Directions::Fenced, None),
            (DatabaseRole::Primary, false, Some(7), Directions::Leads(String::new()), None),
            (DatabaseRole::Rebuilding, false, Some(7), follows(), None),
        ] {
            let status = DatabaseStatus { streaming, lsn: lsn.map(Lsn), ..DatabaseStatus::unknown(role) };
            let expected = expected.map(|lsn| (primary(), Lsn(lsn)));
            assert_eq!(needs(&status, directions), expected, "{status:?}");
        }
    }
}
