//! The extension pg_stat_statements in databases that qluster creates. qluster finds there which statements poolers may send
//! to standbys.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::database::error::{Error, Result};
use crate::database::{Postgres, Turn};
use crate::os;
use crate::os::run;

/// How long a single-user server may take. After that it hangs.
const SINGLE_USER_TIMEOUT: Duration = Duration::from_secs(60);

const SQL: &[u8] = b"CREATE EXTENSION pg_stat_statements;\n";

/// Loads the library of the extension, which needs it. A user's own list goes elsewhere in the file.
const PRELOAD: &str = "\n# What /sql/readonly comes from; see qluster's documentation.\nshared_preload_libraries = 'pg_stat_statements'\n";

impl Postgres {
    /// Adds the extension to a data directory that was just created and that nothing runs on. It goes into `template1`, so that
    /// each new database gets it, and into `postgres`, where qluster reads it. If the package with the extension is not
    /// installed, the database does without it.
    pub(super) async fn add_extension(&self, turn: &Turn, new: &Path) -> Result<()> {
        for database in ["template1", "postgres"] {
            if let Err(error) = self.create_extension(new, database).await {
                let error = error.chain();
                tracing::warn!(error, "the database is created without pg_stat_statements: /sql/readonly stays empty");
                return Ok(());
            }
        }
        let path = new.join("postgresql.conf");
        self.blocking(turn, move |data_dir| {
            let text = data_dir.files.read(&path)?.unwrap_or_default();
            Ok(data_dir.files.write(&path, &(text + PRELOAD), 0o600).map(drop)?)
        })
        .await
    }

    /// Creates the extension by a single-user server. That loads its library, so success means that it is installed.
    async fn create_extension(&self, new: &Path, database: &str) -> Result<()> {
        let mut command = self.data_dir.files.accounts.command(&self.data_dir.programs.path("postgres"));
        let pipe = || -> std::io::Result<std::io::PipeReader> {
            let (reader, mut writer) = std::io::pipe()?;
            writer.write_all(SQL)?;
            Ok(reader)
        };
        let input = pipe().map_err(|source| os::Error::Spawn { program: "postgres --single".into(), source })?;
        command.current_dir(new).stdin(input).args(["--single", "-c", "exit_on_error=on", "-D"]).arg(new).arg(database);
        match tokio::time::timeout(SINGLE_USER_TIMEOUT, run::run(command, "postgres --single", |_| {})).await {
            Ok(done) => Ok(done.map(drop)?),
            Err(_) => Err(Error::Unanswered { attempted: "add an extension", within: SINGLE_USER_TIMEOUT }),
        }
    }
}
