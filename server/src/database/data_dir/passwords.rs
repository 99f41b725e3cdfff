//! The password of the replication role, as this node knows it.
//!
//! While the cluster's secret is being replaced, a node knows several passwords: a primary sets the first one, and a
//! standby finds out which one its primary takes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use secrecy::{ExposeSecret, SecretString};

use crate::database::error::Result;
use crate::formats::ROLE;
use crate::os::files::Files;
use crate::os::lock::lock;

/// The passwords of the replication role that a node knows. A primary sets the first one.
#[derive(Clone)]
pub struct Passwords(Arc<dyn Fn() -> Vec<SecretString> + Send + Sync>);

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords")
    }
}

impl Passwords {
    /// The passwords that `now` returns each time that it is called.
    pub fn new(now: impl Fn() -> Vec<SecretString> + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    fn now(&self) -> Vec<SecretString> {
        self.0()
    }
}

/// Whether two passwords are the same.
fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

/// The password of the replication role: which ones are known, which one works, and which one was set.
pub(crate) struct ReplicationPassword {
    /// None if standbys need no password.
    known: Option<Passwords>,
    /// The file with the password for libpq, if there is one.
    passfile: Option<PathBuf>,
    files: Files,
    /// The password that a primary took last.
    taken: Mutex<Option<SecretString>>,
    /// The password that was set last, and on which postmaster.
    set: Mutex<Option<(i32, SecretString)>>,
}

impl ReplicationPassword {
    pub(super) fn new(known: Option<Passwords>, passfile: Option<PathBuf>, files: Files) -> Self {
        Self { known, passfile, files, taken: Mutex::default(), set: Mutex::default() }
    }

    /// Whether standbys need a password.
    pub(crate) fn is_needed(&self) -> bool {
        self.known.is_some()
    }

    /// The password to set as a primary.
    pub(crate) fn to_set(&self) -> Option<SecretString> {
        self.known.as_ref()?.now().into_iter().next()
    }

    /// The passwords to try at a primary. The one that was taken last comes first.
    pub(crate) fn to_try(&self) -> Vec<SecretString> {
        let mut known = self.known.as_ref().map(Passwords::now).unwrap_or_default();
        if let Some(taken) = &*lock(&self.taken) {
            // The sort is stable: it keeps the order of the others.
            known.sort_by_key(|password| !same(password, taken));
        }
        known
    }

    /// Notes that a primary took this password.
    pub(crate) fn was_taken(&self, password: SecretString) {
        *lock(&self.taken) = Some(password);
    }

    /// Whether the password to set was set on this postmaster already.
    pub(crate) fn is_set(&self, pid: Option<i32>) -> bool {
        let set = lock(&self.set).clone();
        set.zip(self.to_set()).is_some_and(|((on, set), wanted)| Some(on) == pid && same(&set, &wanted))
    }

    /// Notes that this password was set on this postmaster.
    pub(crate) fn was_set(&self, pid: Option<i32>, password: SecretString) {
        *lock(&self.set) = pid.map(|pid| (pid, password));
    }

    /// Writes the password of the replication role for libpq.
    pub(crate) fn write_passfile(&self) -> Result<()> {
        if let (Some(path), Some(password)) = (&self.passfile, self.to_try().first()) {
            let password = password.expose_secret().replace('\\', "\\\\").replace(':', "\\:");
            self.files.write(path, &format!("*:*:*:{ROLE}:{password}\n"), 0o600)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::account::Accounts;

    #[test]
    fn the_password_that_worked_is_tried_first_and_written_for_libpq() {
        let dir = tempfile::tempdir().unwrap();
        let passfile = dir.path().join("pgpass");
        let known = Passwords::new(|| ["a", "b:\\c"].map(SecretString::from).into());
        let files = Files { accounts: Accounts::find(None).unwrap() };
        let password = ReplicationPassword::new(Some(known), Some(passfile.clone()), files);
        let first = || password.to_try()[0].expose_secret().to_owned();
        assert_eq!((first(), password.to_set().unwrap().expose_secret()), ("a".into(), "a"));
        password.was_taken("b:\\c".into());
        assert_eq!((first(), password.to_set().unwrap().expose_secret()), ("b:\\c".into(), "a"));
        password.write_passfile().unwrap();
        assert_eq!(std::fs::read_to_string(passfile).unwrap(), "*:*:*:qluster:b\\:\\\\c\n");
        password.was_set(Some(7), "a".into());
        assert!(password.is_set(Some(7)) && !password.is_set(Some(8)) && !password.is_set(None));
        password.was_set(Some(7), "b:\\c".into());
        assert!(!password.is_set(Some(7)), "another one is to be set");
    }
}
