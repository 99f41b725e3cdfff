//! `pg_stat_statements` in databases that qluster creates: what poolers may send to standbys is found out of it.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::error::{Error, Result};
use super::{Postgres, Turn, programs};

/// A single-user server that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

const SQL: &[u8] = b"CREATE EXTENSION pg_stat_statements;\n";

/// Loads the library, without which the extension tells nothing. A user's own list goes elsewhere in the file.
const PRELOAD: &str = "\n# What /sql/readonly comes from; see qluster's documentation.\nshared_preload_libraries = 'pg_stat_statements'\n";

impl Postgres {
    /// Adds the extension to a data directory that was just created and that nothing runs on: to `template1`, so that
    /// every database gets it, and to `postgres`, which it tells them from. Where the package that has it is not
    /// installed, the database does without.
    pub(super) async fn add_extension(&self, turn: &Turn, new: &Path) -> Result<()> {
        for database in ["template1", "postgres"] {
            if let Err(error) = self.create_extension(new, database).await {
                let error = error.chain();
                tracing::warn!(error, "the database is created without pg_stat_statements: /sql/readonly stays empty");
                return Ok(());
            }
        }
        let path = new.join("postgresql.conf");
        self.blocking(turn, move |home| {
            let text = home.files.read(&path)?.unwrap_or_default();
            home.files.write(&path, &(text + PRELOAD), 0o600).map(drop)
        })
        .await
    }

    /// By a single-user server: creating the extension loads its library, so success says that it is there.
    async fn create_extension(&self, new: &Path, database: &str) -> Result<()> {
        let mut command = self.home.files.accounts.command(&self.home.programs.path("postgres"));
        let pipe = || -> std::io::Result<std::io::PipeReader> {
            let (reader, mut writer) = std::io::pipe()?;
            writer.write_all(SQL)?;
            Ok(reader)
        };
        let input = pipe().map_err(|source| Error::Spawn { program: "postgres --single".into(), source })?;
        command.current_dir(new).stdin(input).args(["--single", "-c", "exit_on_error=on", "-D"]).arg(new).arg(database);
        match tokio::time::timeout(PATIENCE, programs::run(command, "postgres --single", |_| {})).await {
            Ok(done) => done.map(drop),
            Err(_) => Err(Error::Unanswered { attempted: "add an extension", within: PATIENCE }),
        }
    }
}
