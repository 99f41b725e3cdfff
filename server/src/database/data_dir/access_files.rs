//! The files that say who may connect: our `hba_file` and `ident_file`, and the user's rules that they take over.
//!
//! If PostgreSQL refuses the user's `pg_hba.conf`, the last rules that it took are written in its place. These are kept in
//! `qluster_hba.good` in the data directory, the refused ones in `pg_hba.refused` in the run directory.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::packaged::packaged_config;
use super::settings::Own;
use crate::database::error::Result;
use crate::formats::hba::{self, Access};
use crate::os::files::Files;

/// The last of the user's rules that PostgreSQL took.
const GOOD_RULES: &str = "qluster_hba.good";

/// The files that say who may connect.
pub(crate) struct AccessFiles {
    data_dir: PathBuf,
    run_dir: PathBuf,
    files: Files,
    hba_file: PathBuf,
    ident_file: PathBuf,
    superusers: Vec<String>,
    with_password: bool,
}

impl AccessFiles {
    pub(super) fn new(
        data_dir: &Path,
        run_dir: &Path,
        files: &Files,
        own: &Own,
        superusers: &[String],
        with_password: bool,
    ) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            run_dir: run_dir.to_owned(),
            files: files.clone(),
            hba_file: own.hba_file.clone(),
            ident_file: own.ident_file.clone(),
            superusers: superusers.to_vec(),
            with_password,
        }
    }

    /// The user's rules that PostgreSQL refused last.
    fn refused_rules(&self) -> PathBuf {
        self.run_dir.join("pg_hba.refused")
    }

    /// Whether our `hba_file` lets clients in.
    fn form(&self) -> Result<Access> {
        Ok(Access::parse(&self.files.read(&self.hba_file)?.unwrap_or_default()))
    }

    /// Writes our files, in their present form unless another is given. Returns whether they changed.
    pub(crate) fn write(&self, access: Option<Access>) -> Result<bool> {
        let access = access.map_or_else(|| self.form(), Ok)?;
        let superusers: Vec<&str> = self.superusers.iter().map(String::as_str).collect();
        let accounts = &self.files.accounts;
        let mut names = vec![accounts.daemon.as_str()];
        if accounts.database.name != accounts.daemon {
            names.push(&accounts.database.name);
        }
        let hba = hba::hba(&superusers, self.with_password, access, &self.users_rules()?);
        let ident = hba::ident(&accounts.daemon, &names, &superusers, &self.users_file("pg_ident.conf")?);
        let changed = self.files.write(&self.hba_file, &hba, 0o600)?;
        Ok(self.files.write(&self.ident_file, &ident, 0o600)? || changed)
    }

    /// The user's `pg_hba.conf`. If PostgreSQL refused it as it is now, the last rules that it took.
    fn users_rules(&self) -> Result<String> {
        let rules = self.users_file("pg_hba.conf")?;
        if self.files.read(&self.refused_rules())?.as_ref() == Some(&rules)
            && let Some(good) = self.files.read(&self.data_dir.join(GOOD_RULES))?
        {
            return Ok(good);
        }
        Ok(rules)
    }

    /// Keeps the user's rules as they were written last: PostgreSQL takes them.
    pub(crate) fn keep_rules(&self) -> Result<()> {
        let hba = self.files.read(&self.hba_file)?.unwrap_or_default();
        if let Some(rules) = hba::users_part(&hba) {
            self.files.write(&self.data_dir.join(GOOD_RULES), rules, 0o600)?;
        }
        Ok(())
    }

    /// Notes that PostgreSQL refuses the user's rules as they were written last. Returns whether other rules are kept, which
    /// are written next.
    pub(crate) fn refuse_rules(&self) -> Result<bool> {
        let hba = self.files.read(&self.hba_file)?.unwrap_or_default();
        let good = self.files.read(&self.data_dir.join(GOOD_RULES))?;
        let Some(rules) = hba::users_part(&hba) else { return Ok(false) };
        self.files.write(&self.refused_rules(), rules, 0o600)?;
        Ok(good.is_some_and(|good| good != rules))
    }

    /// The user's file of this name: in the data directory, or beside the packaged configuration. Empty if there is none.
    fn users_file(&self, name: &str) -> Result<String> {
        if let Some(text) = self.files.read(&self.data_dir.join(name))? {
            return Ok(text);
        }
        let packaged = packaged_config(&self.data_dir, &self.files).map(|path| path.with_file_name(name));
        Ok(packaged.map(|path| self.files.read(&path)).transpose()?.flatten().unwrap_or_default())
    }

    /// When the user's files were changed last.
    pub(crate) fn changed(&self) -> [Option<SystemTime>; 2] {
        ["pg_hba.conf", "pg_ident.conf"]
            .map(|name| std::fs::metadata(self.data_dir.join(name)).and_then(|about| about.modified()).ok())
    }
}

#[cfg(test)]
mod tests {
    use qluster_consensus::model::{NodeId, Port};

    use super::*;
    use crate::os::account::Accounts;

    #[test]
    fn refused_rules_give_way_to_the_last_good_ones_until_the_user_changes_them() {
        let dir = tempfile::tempdir().unwrap();
        let (data, run) = (dir.path().join("data"), dir.path().join("run"));
        [&data, &run].iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        let own = Own {
            node: NodeId(1),
            ip: [127, 0, 0, 1].into(),
            port: Port::new(5432).unwrap(),
            socket_dir: run.clone(),
            hba_file: data.join("qluster_hba.conf"),
            ident_file: data.join("qluster_ident.conf"),
            passfile: None,
        };
        let files = Files { accounts: Accounts::find(None).unwrap() };
        let access = AccessFiles::new(&data, &run, &files, &own, &["postgres".into()], false);
        let users = |rules: &str| std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let written = || {
            let text = std::fs::read_to_string(&own.hba_file).unwrap();
            hba::users_part(&text).map(str::to_owned)
        };
        users("good\n");
        assert!(access.write(Some(Access::Open)).unwrap());
        assert!(!access.write(None).unwrap(), "nothing has changed");
        access.keep_rules().unwrap();
        users("bad\n");
        assert!(access.write(None).unwrap());
        assert_eq!(written().as_deref(), Some("bad\n"));
        assert!(access.refuse_rules().unwrap(), "good rules are kept");
        access.write(None).unwrap();
        assert_eq!(written().as_deref(), Some("good\n"));
        users("better\n");
        access.write(None).unwrap();
        assert_eq!(written().as_deref(), Some("better\n"));
        // The form stays as it is, unless another is given.
        access.write(Some(Access::Closed)).unwrap();
        access.write(None).unwrap();
        assert_eq!(written(), None);
    }
}
