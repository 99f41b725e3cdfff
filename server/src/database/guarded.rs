//! What a database and its guard (`crate::guard`) know of each other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Postgres;
use super::error::{Error, Result};
use super::process;
use super::settings::Directions;
use crate::guard::{Guard, GuardConfig, Hold, WatchdogSettings};

impl Postgres {
    /// Has each promotion wait for a guard from now on; a second call changes nothing. The guard has to be run.
    pub fn guarded_with(&self, watchdog: WatchdogSettings) -> Guard {
        let home = &self.home;
        let config = || GuardConfig {
            // By this name it is found also after an upgrade has replaced it.
            program: "/proc/self/exe".into(),
            data_dir: home.data_dir.clone(),
            run_dir: home.run_dir.clone(),
            programs: home.programs.on_data(),
            watchdog,
        };
        self.guard.get_or_init(|| Guard::new(config())).clone()
    }

    /// The guard, where there is one.
    pub fn guard(&self) -> Option<&Guard> {
        self.guard.get()
    }

    /// Whether the database is, or may be, a primary: it was told to be one, and was not fenced since.
    pub fn may_lead(&self) -> bool {
        matches!(self.home.directions(), Directions::Leads(_))
    }

    /// Waits until the guard is ready for a promotion. What is returned is kept until the promotion is done.
    pub(super) async fn guarded(&self) -> Result<Option<Hold>> {
        match self.guard() {
            Some(guard) => guard.hold().await.map(Some).map_err(|error| Error::Unfit(crate::report::chain(&error))),
            None => Ok(None),
        }
    }
}

/// Ends all processes of a database by the demote ladder, for the guard, which has nothing but its directory; unless it
/// was told last to be a standby, or nothing runs. Tells whether there was something to end.
///
/// An agent that is back at that moment may start a standby meanwhile, which is then ended too: it starts it again.
pub(crate) async fn end_primary(data_dir: &Path, programs: &[PathBuf], deadline: Duration) -> Result<bool> {
    if process::all_of(data_dir, programs).is_empty() {
        return Ok(false);
    }
    // What cannot be read may say that it is a primary. Looked at after the processes: a standby starts after this says
    // that it is one.
    let text = std::fs::read_to_string(data_dir.join("qluster.conf")).unwrap_or_default();
    if matches!(Directions::parse(&text), Some(Directions::Fenced | Directions::Follows(_))) {
        return Ok(false);
    }
    process::end_at(data_dir, programs, deadline).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that works in `dir`.
    fn sleeper(dir: &Path) -> std::process::Child {
        std::process::Command::new("sleep").arg("60").current_dir(dir).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_primary_is_ended_and_a_standby_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let mut child = sleeper(&dir);
        let program = std::fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
        let deadline = Duration::from_secs(2);
        for (settings, ended) in [
            ("# directions: fenced\n", false),
            ("# directions: follows 1 7 127.0.0.1 5432 2\n", false),
            ("# directions: leads\nsynchronous_standby_names = ''\n", true),
            ("# directions: odd\n", true),
        ] {
            std::fs::write(dir.join("qluster.conf"), settings).unwrap();
            let done = end_primary(&dir, std::slice::from_ref(&program), deadline).await.unwrap();
            assert_eq!((done, child.try_wait().unwrap().is_some()), (ended, ended), "{settings}");
            if ended {
                assert!(!end_primary(&dir, std::slice::from_ref(&program), deadline).await.unwrap());
                child = sleeper(&dir);
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
