//! What others do to qluster's settings while PostgreSQL runs: by `ALTER SYSTEM`, or in a file.

use std::sync::Arc;

use crate::database::Postgres;
use crate::database::error::{Error, Result};
use crate::database::sessions::client::{QUERY_TIMEOUT, cell, one};
use crate::database::sessions::settings::check_files;
use crate::formats::directions::Directions;

/// The settings by which commits do not wait for standbys, or not until these have flushed them, although a sync rule asks
/// for that: in a file, of a role, of a database, or of both. The session's own value does not count: the daemon sets it.
const UNPROTECTED: &str = "
    SELECT string_agg(format('%s%s', setting, place), ', ' ORDER BY setting, place)
      FROM (SELECT format('%s=%s', name, setting) AS setting, format(' in %s', sourcefile) AS place
              FROM pg_file_settings WHERE name = 'synchronous_commit' AND applied
             UNION ALL
            SELECT setting, concat(' of role ' || quote_ident(rolname), ' of database ' || quote_ident(datname))
              FROM pg_db_role_setting
             CROSS JOIN unnest(setconfig) AS setting
              LEFT JOIN pg_roles ON pg_roles.oid = setrole
              LEFT JOIN pg_database ON pg_database.oid = setdatabase) AS settings
     WHERE setting ~ '^synchronous_commit=(off|local|remote_write)$'
       AND current_setting('synchronous_standby_names') <> ''";

/// A sync rule that differs from what was told.
#[derive(Debug, Default)]
pub(super) struct RuleDrift {
    /// The rule that was told, and the different rule that was found by the last check.
    rules: Option<(String, String)>,
}

impl RuleDrift {
    /// Takes in what was told and what is loaded. Returns whether somebody changed the rule: if it differs twice in a row,
    /// since a rule that was told just now may not be loaded yet.
    fn is_undone(&mut self, told: &str, found: String) -> bool {
        if told == found {
            self.rules = None;
            return false;
        }
        let now = Some((told.to_owned(), found));
        std::mem::replace(&mut self.rules, now.clone()) == now
    }
}

impl Postgres {
    /// Puts the sync rule of a primary back in force if somebody changed it.
    pub(super) async fn keep_rule(&self, drift: &mut RuleDrift) {
        let Directions::Leads(rule) = self.data_dir.settings.directions() else {
            *drift = RuleDrift::default();
            return;
        };
        let Ok(found) = self.loaded_rule().await else { return };
        if !drift.is_undone(&rule, found.clone()) {
            return;
        }
        // The operation under way may be about to change it.
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return };
        let directions = self.data_dir.settings.directions();
        if directions != Directions::Leads(rule.clone()) {
            return;
        }
        tracing::warn!(found, rule, "somebody changed synchronous_standby_names: it is set back");
        self.sync_rule.note_drift();
        let put_back = async {
            let stamp = self.direct(&Arc::new(turn), directions, None).await?;
            self.loaded(&stamp).await
        };
        if let Err(error) = put_back.await {
            tracing::error!(error = error.chain(), "the sync rule is not in force");
        }
    }

    /// Checks whether PostgreSQL would still load new directions.
    pub(super) async fn check_settings(&self) {
        let Ok(session) = self.sessions.session().await else { return };
        let found = match check_files(&session.client).await {
            Ok(()) => None,
            Err(Error::Unfit(reason)) => Some(reason),
            Err(_) => return,
        };
        let before = self.findings.set_faulty(found.clone());
        if let Some(reason) = found.filter(|_| before.is_none()) {
            tracing::warn!(reason, "PostgreSQL loads no new settings until the error in its files is corrected");
        }
    }

    /// Warns if commits of a primary do not wait for its standbys although its sync rule asks for it. Nothing else shows that,
    /// and acknowledged commits may be lost.
    pub(super) async fn check_commits(&self) {
        let Ok(session) = self.sessions.session().await else { return };
        let found = match one(&session.client, QUERY_TIMEOUT, "tell how commits wait", UNPROTECTED).await {
            Ok(row) => cell::<Option<String>>(&row, 0).ok().flatten(),
            Err(_) => return,
        };
        let before = self.findings.set_unprotected(found.clone());
        if let Some(found) = found.filter(|found| before.as_ref() != Some(found)) {
            tracing::warn!(
                found,
                "commits do not wait until standbys have flushed them: acknowledged commits may be lost"
            );
        }
    }

    async fn loaded_rule(&self) -> Result<String> {
        let session = self.sessions.session().await?;
        let sql = "SELECT current_setting('synchronous_standby_names')";
        let row = one(&session.client, QUERY_TIMEOUT, "tell its sync rule", sql).await?;
        cell(&row, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_was_changed_if_it_differs_twice_in_a_row() {
        let mut drift = RuleDrift::default();
        for (told, found, expected) in [
            ("ANY 1 (a)", "ANY 1 (a)", false),
            ("ANY 1 (b)", "ANY 1 (a)", false),
            ("ANY 1 (b)", "ANY 1 (b)", false),
            ("ANY 1 (b)", "", false),
            ("ANY 1 (c)", "", false),
            ("ANY 1 (c)", "", true),
            ("ANY 1 (c)", "", true),
            ("ANY 1 (c)", "ANY 1 (c)", false),
            ("ANY 1 (c)", "", false),
        ] {
            assert_eq!(drift.is_undone(told, found.into()), expected, "{told} {found}");
        }
    }
}
