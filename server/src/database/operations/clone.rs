//! Cloning a primary's database (PostgreSQL's documentation, "pg_basebackup").

use std::path::PathBuf;
use std::time::Duration;

use qluster_consensus::protocol::database::Primary;

use super::rebuild::{Held, Rebuilding, percent};
use crate::database::data_dir::staging::{self, Contents};
use crate::database::error::{Error, Result};
use crate::database::sessions::client::{cell, one};
use crate::database::{Postgres, Turn};
use crate::formats::directions::Directions;
use crate::os::{disk, run};

/// How long the primary may take to report the size of its database.
const SIZE_TIMEOUT: Duration = Duration::from_secs(60);

impl Postgres {
    pub(crate) async fn do_clone(&self, primary: Primary) -> Result<()> {
        let turn = self.turn().await;
        let size = self.size_of(&primary).await?;
        let rebuilding = Rebuilding::begin(self);
        let done = self.clone_now(&turn, &primary, size, &rebuilding).await;
        drop(rebuilding);
        self.observe().await;
        done
    }

    async fn clone_now(&self, turn: &Turn, primary: &Primary, size: u64, shown: &Rebuilding<'_>) -> Result<()> {
        let _held = Held::begin(&self.restart_hold);
        self.stop_for_rebuild().await?;
        let new = self.blocking(turn, move |data_dir| {
            staging::finish(&data_dir.path)?;
            // This refuses a directory with somebody else's files.
            let contents = data_dir.contents()?;
            let wal = data_dir.path.join("pg_wal");
            if disk::is_mount(&data_dir.path, &wal) {
                return Err(Error::Unfit(format!(
                    "{} is a mount point, which a copy cannot replace: unmount it, and the copy has its WAL there",
                    wal.display()
                )));
            }
            data_dir.files.make_dir(&data_dir.path, 0o700)?;
            data_dir.passwords.write_passfile()?;
            let free = disk::space(&data_dir.path)?.free;
            if contents != Contents::Nothing && free < size + size / 10 {
                tracing::warn!(
                    free,
                    size,
                    "there is no space for two copies: the old data are removed before the new ones are there"
                );
                staging::clear(&data_dir.path)?;
            }
            let new = staging::new_dir(&data_dir.path);
            data_dir.files.make_dir(&new, 0o700)?;
            Ok(new)
        });
        let new = new.await?;
        let data_dir = &self.data_dir;
        let mut command = data_dir.files.accounts.command(&data_dir.programs.path("pg_basebackup"));
        command.current_dir(&data_dir.path).arg("--pgdata").arg(&new);
        command.args(["--wal-method=stream", "--checkpoint=fast", "--progress", "--no-password"]);
        command.arg("--dbname").arg(data_dir.own.connect(primary, &[]));
        let copied = run::run(command, "pg_basebackup", |line| {
            if let Some(percent) = percent(line) {
                shown.show(Some(percent));
            }
        });
        copied.await?;
        // From here on there is a whole copy: the WAL that came with it makes it consistent. If something keeps it from starting,
        // or from streaming, another copy would have the same problem.
        self.install(turn, new, primary).await
    }

    /// Puts the copy in its place and starts it.
    async fn install(&self, turn: &Turn, new: PathBuf, primary: &Primary) -> Result<()> {
        let installed = self.blocking(turn, move |data_dir| {
            data_dir.marks.forget_past()?;
            staging::install(&data_dir.path, &new)
        });
        installed.await?;
        self.prepare(turn, Directions::Follows(primary.clone())).await?;
        self.blocking(turn, |data_dir| data_dir.marks.end_rewind()).await?;
        self.spawn()
    }

    /// The size of the primary's database, in bytes. A database with tablespaces is refused: they would be copied to the same
    /// paths.
    async fn size_of(&self, primary: &Primary) -> Result<u64> {
        let client = self.connect_to(primary).await?;
        let sql = "SELECT (SELECT sum(pg_database_size(oid))::bigint FROM pg_database),
                          (SELECT string_agg(spcname, ', ') FROM pg_tablespace WHERE pg_tablespace_location(oid) <> '')";
        let row = one(&client, SIZE_TIMEOUT, "report its size", sql).await?;
        if let Some(names) = cell::<Option<String>>(&row, 1)? {
            let node = primary.node;
            return Err(Error::Unfit(format!("node {node} has tablespaces, which are not supported: {names}")));
        }
        Ok(cell::<Option<i64>>(&row, 0)?.and_then(|size| u64::try_from(size).ok()).unwrap_or_default())
    }
}
