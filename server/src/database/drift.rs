//! What others do to the settings that are qluster's while PostgreSQL runs: by `ALTER SYSTEM`, or in a file.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_postgres::Client;

use super::Postgres;
use super::error::{Error, Result};
use super::home::lock;
use super::session::{PATIENCE, cell, one, within};
use super::settings::Directions;

/// What keeps PostgreSQL from loading any setting. A value that is out of range, and one that takes a restart, do not.
const FAULT: &str = "
    SELECT format('%s line %s: %s', sourcefile, sourceline, concat_ws(': ', name, error))
      FROM pg_file_settings
     WHERE error NOT IN ('', 'setting could not be applied')
       AND error NOT LIKE 'parameter % cannot be changed without restarting the server'
     ORDER BY seqno LIMIT 1";

/// Where commits are told not to wait for standbys, or not until those have flushed them, though a rule says that they
/// are to: a setting in a file, of a role, a database, or both. Not as the session has it, which sets its own.
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

/// What the looks at the settings of a running PostgreSQL have found.
#[derive(Debug, Default)]
pub(super) struct Drift {
    /// The rule that was told, and the other one that was found, at the last look.
    rules: Option<(String, String)>,
}

impl Drift {
    /// Takes in what was told and what is loaded, and tells whether the rule was undone. Twice in a row: a rule that was
    /// told just now may not be loaded yet.
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
    /// Puts the sync rule of a primary back in force where somebody undid it.
    pub(super) async fn keep_rule(&self, drift: &mut Drift) {
        let Directions::Leads(rule) = self.home.directions() else {
            *drift = Drift::default();
            return;
        };
        let Ok(found) = self.loaded_rule().await else { return };
        if !drift.is_undone(&rule, found.clone()) {
            return;
        }
        // What is under way may be about to change it.
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return };
        let directions = self.home.directions();
        if directions != Directions::Leads(rule.clone()) {
            return;
        }
        tracing::warn!(found, rule, "somebody changed synchronous_standby_names: it is set back");
        *lock(&self.in_force) = None;
        self.drifted.store(true, Ordering::SeqCst);
        let put_back = async {
            let stamp = self.direct(&Arc::new(turn), directions, None).await?;
            self.loaded(&stamp).await
        };
        if let Err(error) = put_back.await {
            tracing::error!(error = error.chain(), "the sync rule is not in force");
        }
    }

    /// Looks whether a standby could still be told something.
    pub(super) async fn look_at_settings(&self) {
        let Ok(session) = self.session().await else { return };
        let found = match check(&session.client).await {
            Ok(()) => None,
            Err(Error::Unfit(reason)) => Some(reason),
            Err(_) => return,
        };
        let before = std::mem::replace(&mut *lock(&self.faulty), found.clone());
        if let Some(reason) = found.filter(|_| before.is_none()) {
            tracing::warn!(reason, "PostgreSQL cannot be told anything until its settings are corrected");
        }
    }

    /// Says where commits of a primary do not wait for its standbys, though its sync rule says so: nothing else tells, and
    /// what they acknowledge may be lost.
    pub(super) async fn look_at_commits(&self) {
        let Ok(session) = self.session().await else { return };
        let found = match one(&session.client, PATIENCE, "tell how commits wait", UNPROTECTED).await {
            Ok(row) => cell::<Option<String>>(&row, 0).ok().flatten(),
            Err(_) => return,
        };
        let before = std::mem::replace(&mut *lock(&self.unprotected), found.clone());
        if let Some(found) = found.filter(|found| before.as_ref() != Some(found)) {
            tracing::warn!(
                found,
                "commits do not wait until standbys have flushed them: what is acknowledged may be lost"
            );
        }
    }

    async fn loaded_rule(&self) -> Result<String> {
        let session = self.session().await?;
        let sql = "SELECT current_setting('synchronous_standby_names')";
        let row = one(&session.client, PATIENCE, "tell its sync rule", sql).await?;
        cell(&row, 0)
    }
}

/// Fails where an error in its files keeps PostgreSQL from loading any setting.
pub(super) async fn check(client: &Client) -> Result<()> {
    let rows = within(PATIENCE, "check its settings", client.query(FAULT, &[])).await?;
    match rows.first() {
        Some(row) => Err(Error::Unfit(format!("it loads no settings, since one is wrong: {}", cell::<&str>(row, 0)?))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_undone_once_it_was_found_so_twice() {
        let mut drift = Drift::default();
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
