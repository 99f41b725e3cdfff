//! What a rewind and a clone have in common: their progress in the status, and no restart meanwhile.

use std::time::Duration;

use qluster_consensus::protocol::database::DatabaseRole;

use super::END_TIMEOUT;
use super::restart_hold::RestartHold;
use crate::database::Postgres;
use crate::database::error::Result;
use crate::database::sessions::client::QUERY_TIMEOUT;

/// Shows in the status that the database is being rebuilt, until it is dropped.
pub(super) struct Rebuilding<'a>(&'a Postgres);

impl<'a> Rebuilding<'a> {
    pub(super) fn begin(postgres: &'a Postgres) -> Self {
        let rebuilding = Self(postgres);
        rebuilding.show(None);
        rebuilding
    }

    /// Shows how far it is, in percent.
    pub(super) fn show(&self, percent: Option<u8>) {
        self.0.findings.set_rebuilding(Some(percent));
        self.0.status.outdate();
        self.0.status.modify(|status| {
            status.role = DatabaseRole::Rebuilding;
            status.streaming = false;
            status.progress = percent;
        });
    }
}

impl Drop for Rebuilding<'_> {
    fn drop(&mut self) {
        self.0.findings.set_rebuilding(None);
        self.0.status.outdate();
        let runs = self.0.data_dir.postmaster.pid().is_some();
        self.0.status.modify(|status| {
            status.role = if runs { DatabaseRole::Starting } else { DatabaseRole::Stopped };
            status.progress = None;
        });
    }
}

/// Keeps the monitor from starting PostgreSQL, until a little after it is dropped: what failed is tried again soon, and
/// diverged data must not be read meanwhile.
pub(super) struct Held<'a>(&'a RestartHold);

/// How long PostgreSQL is not started after a rebuild that failed: longer than the pause between two tries.
const RETRY_HOLD: Duration = Duration::from_secs(5);

impl<'a> Held<'a> {
    pub(super) fn begin(hold: &'a RestartHold) -> Self {
        hold.hold();
        Self(hold)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release_in(RETRY_HOLD);
    }
}

impl Postgres {
    /// Stops PostgreSQL before a rebuild.
    pub(super) async fn stop_for_rebuild(&self) -> Result<()> {
        if self.may_be_primary(QUERY_TIMEOUT).await { self.end(END_TIMEOUT).await } else { self.stop_fast().await }
    }
}

/// The percentage in an output line of pg_rewind or pg_basebackup: `123/456 kB (26%) copied`. None if it has none.
pub(super) fn percent(line: &str) -> Option<u8> {
    let before = &line[..line.find("%)")?];
    let number = &before[before.rfind('(')? + 1..];
    number.trim().parse::<u8>().ok().map(|percent| percent.min(100))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentages_are_read_from_what_the_programs_say() {
        for (line, expected) in [
            ("30480/30480 kB (100%), 1/1 tablespace", Some(100)),
            ("    0/30480 kB (0%), 0/1 tablespace (/x/base/1)", Some(0)),
            ("  12345/ 67890 kB (18%) copied", Some(18)),
            ("1/1 kB (108%)", Some(100)),
            ("pg_basebackup: checkpoint completed", None),
            ("%)", None),
            ("(x%)", None),
        ] {
            assert_eq!(percent(line), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in "(\\PC|%\\)|\\(){0,20}") {
            let _ = percent(&line);
        }
    }
}
