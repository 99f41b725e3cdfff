//! Copying a primary's database.

use std::time::Duration;

use qluster_consensus::protocol::database::Primary;

use super::disk;
use super::error::{Error, Result};
use super::programs;
use super::rewind::{Held, Rebuilding, percent};
use super::session::{PATIENCE, cell, one};
use super::settings::Directions;
use super::staging::{self, Contents};
use super::{Postgres, Turn};

impl Postgres {
    pub(super) async fn do_clone(&self, primary: Primary) -> Result<()> {
        let turn = self.turn().await;
        let size = self.size_of(&primary).await?;
        let rebuilding = Rebuilding::begin(self);
        let done = self.clone_now(&turn, &primary, size, &rebuilding).await;
        drop(rebuilding);
        self.observe().await;
        done
    }

    async fn clone_now(&self, turn: &Turn, primary: &Primary, size: u64, shown: &Rebuilding<'_>) -> Result<()> {
        let _held = Held::begin(self);
        if self.may_be_primary(PATIENCE).await {
            self.end(Duration::from_secs(5)).await?;
        } else {
            self.stop_fast().await?;
        }
        let new = self.blocking(turn, move |home| {
            staging::finish(&home.data_dir)?;
            // Refuses what is somebody else's.
            let contents = home.contents()?;
            let wal = home.data_dir.join("pg_wal");
            if disk::is_mount(&home.data_dir, &wal) {
                return Err(Error::Unfit(format!(
                    "{} is a mount point, whose place a copy cannot take: unmount it, and the copy has its WAL there",
                    wal.display()
                )));
            }
            home.files.make_dir(&home.data_dir, 0o700)?;
            home.write_passfile()?;
            let free = disk::space(&home.data_dir)?.free;
            if contents != Contents::Nothing && free < size + size / 10 {
                tracing::warn!(free, size, "there is no room for two: the old data goes before the new is there");
                staging::clear(&home.data_dir)?;
            }
            let new = staging::new_dir(&home.data_dir);
            home.files.make_dir(&new, 0o700)?;
            Ok(new)
        });
        let new = new.await?;
        let home = &self.home;
        let mut command = home.files.accounts.command(&home.programs.path("pg_basebackup"));
        command.current_dir(&home.data_dir).arg("--pgdata").arg(&new);
        command.args(["--wal-method=stream", "--checkpoint=fast", "--progress", "--no-password"]);
        command.arg("--dbname").arg(home.own.connect(primary, &[]));
        let copied = programs::run(command, "pg_basebackup", |line| {
            if let Some(percent) = percent(line) {
                shown.show(Some(percent));
            }
        });
        copied.await?;
        // From here on there is a whole copy: the WAL that came with it makes it consistent. Whatever keeps it from starting,
        // or from streaming, another copy would have, too.
        self.install(turn, new, primary).await
    }

    /// Puts the copy in its place and starts it.
    async fn install(&self, turn: &Turn, new: std::path::PathBuf, primary: &Primary) -> Result<()> {
        self.blocking(turn, move |home| {
            home.forget_past()?;
            staging::install(&home.data_dir, &new)
        })
        .await?;
        self.prepare(turn, Directions::Follows(primary.clone())).await?;
        self.blocking(turn, |home| home.mark_rewind(false)).await?;
        self.spawn()?;
        Ok(())
    }

    /// How large the primary's database is. One with tablespaces is refused: they would be copied to the same paths.
    async fn size_of(&self, primary: &Primary) -> Result<u64> {
        let client = self.connect_to(primary).await?;
        let sql = "SELECT (SELECT sum(pg_database_size(oid))::bigint FROM pg_database),
                          (SELECT string_agg(spcname, ', ') FROM pg_tablespace WHERE pg_tablespace_location(oid) <> '')";
        let row = one(&client, Duration::from_secs(60), "report its size", sql).await?;
        if let Some(names) = cell::<Option<String>>(&row, 1)? {
            let node = primary.node;
            return Err(Error::Unfit(format!("node {node} has tablespaces, which are not supported: {names}")));
        }
        Ok(cell::<Option<i64>>(&row, 0)?.and_then(|size| u64::try_from(size).ok()).unwrap_or_default())
    }
}
