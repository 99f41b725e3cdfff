//! Creating a database.

use crate::database::Postgres;
use crate::database::data_dir::staging::{self, Contents};
use crate::database::error::Result;
use crate::os::run;

impl Postgres {
    /// Creates the database, unless there is one: that is adopted as it is. Starts nothing.
    ///
    /// A new database has data checksums, the encoding UTF-8, and is sorted by code point, so that all hosts agree. It has
    /// the extension pg_stat_statements if that is installed.
    ///
    /// # Errors
    ///
    /// If the data directory contains something else, or if initdb fails.
    pub async fn initialize(&self) -> Result<()> {
        let turn = self.turn().await;
        let contents = self.blocking(&turn, |data_dir| {
            if data_dir.postmaster.pid().is_none() {
                staging::finish(&data_dir.path)?;
            }
            data_dir.contents()
        });
        if let Contents::Database(_) = contents.await? {
            return Ok(());
        }
        let new = self.blocking(&turn, |data_dir| {
            data_dir.marks.forget_past()?;
            data_dir.files.make_dir(&data_dir.path, 0o700)?;
            let new = staging::new_dir(&data_dir.path);
            data_dir.files.make_dir(&new, 0o700)?;
            Ok(new)
        });
        let new = new.await?;
        let data_dir = &self.data_dir;
        let mut command = data_dir.files.accounts.command(&data_dir.programs.path("initdb"));
        command.current_dir(&data_dir.path).arg("-D").arg(&new);
        command.args(["--data-checksums", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]);
        match data_dir.own.ip.is_loopback() {
            true => command.args(["--auth-local=trust", "--auth-host=trust"]),
            false => command.args(["--auth-local=peer", "--auth-host=scram-sha-256"]),
        };
        run::run(command, "initdb", |_| {}).await?;
        self.add_extension(&turn, &new).await?;
        self.blocking(&turn, move |data_dir| staging::install(&data_dir.path, &new)).await?;
        self.observe().await;
        Ok(())
    }
}
