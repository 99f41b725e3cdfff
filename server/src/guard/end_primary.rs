//! Ending a primary whose daemon does not do it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::formats::directions::Directions;
use crate::os::{Result, postmaster};

/// Ends all processes of the database in `data_dir` by the demote ladder, unless none runs or the database was told last to
/// be a standby. Returns whether it ended anything.
///
/// A daemon that is restarted at that moment may start a standby meanwhile. Then the standby is ended, too, and the daemon
/// starts it again.
pub(super) async fn end_primary(data_dir: &Path, programs: &[PathBuf], deadline: Duration) -> Result<bool> {
    if postmaster::all_of(data_dir, programs).is_empty() {
        return Ok(false);
    }
    // If the file cannot be read, the database may be a primary. The file is read after the processes were listed: it says
    // "standby" before a standby is started.
    let text = std::fs::read_to_string(data_dir.join("qluster.conf")).unwrap_or_default();
    if matches!(Directions::parse(&text), Some(Directions::Fenced | Directions::Follows(_))) {
        return Ok(false);
    }
    postmaster::end_at(data_dir, programs, deadline).await?;
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
