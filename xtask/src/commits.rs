//! Whether the subjects of commits keep the rule in CONTRIBUTING.md: `scope: what`, short enough for a list.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::cargo::{output, root, succeeds};

/// The longest subject, in characters.
const LONGEST: usize = 72;

/// The rule holds from the commit on that brought this file. Older subjects stay as they are.
const SINCE: &str = "xtask/src/commits.rs";

/// Checks all commits since the rule came. A shallow clone shows some of them, and a directory without git shows none;
/// what cannot be seen is not checked.
pub(crate) fn run() -> Result<()> {
    let mut status = git(&["rev-parse", "HEAD"]);
    status.stderr(Stdio::null());
    if !succeeds(status) {
        println!("no commit is checked: this is no git repository, or there is no git");
        return Ok(());
    }
    let added = output(git(&["log", "--format=%H", "--diff-filter=A", "--", SINCE]))?;
    // It may have been removed and added again. In a shallow clone, the oldest commit counts as the one that added all.
    let Some(first) = added.lines().last() else {
        println!("no commit is checked: none has brought {SINCE} yet");
        return Ok(());
    };
    let newer = output(git(&["log", "--no-merges", "--format=%h %s", &format!("{first}..HEAD")]))?;
    let itself = output(git(&["log", "-1", "--format=%h %s", first]))?;
    let commits: Vec<&str> = newer.lines().chain(itself.lines()).collect();
    let faults: Vec<String> = commits.iter().filter_map(|commit| fault(commit)).collect();
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    if !faults.is_empty() {
        bail!("the subjects of {} commits break the rule in CONTRIBUTING.md; they are listed above", faults.len());
    }
    println!("{} commit subjects keep the rule", commits.len());
    Ok(())
}

fn git(args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(args).current_dir(root()).stdin(Stdio::null());
    command
}

/// What is wrong with a commit, given as its hash, a space and its subject. None if nothing is.
fn fault(commit: &str) -> Option<String> {
    let subject = commit.split_once(' ')?.1;
    let length = subject.chars().count();
    let is_scope = |scope: &str| {
        let words = scope.split(", ");
        words.into_iter().all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
    };
    let what = match subject.split_once(": ") {
        _ if length > LONGEST => format!("its subject has {length} characters, at most {LONGEST} are allowed"),
        Some((scope, what)) if is_scope(scope) && !what.trim().is_empty() => return None,
        _ => "its subject is not `scope: what`".to_owned(),
    };
    Some(format!("{commit}\n    {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_a_scope_and_what_changes_and_is_short() {
        let long = format!("c1d2 server: {}", "x".repeat(64));
        let longest = format!("c1d2 server: {}", "ä".repeat(64));
        assert_eq!(longest.split_once(' ').unwrap().1.chars().count(), LONGEST);
        for (commit, expected) in [
            ("c1d2 server: refuse a join of another cluster", None),
            ("c1d2 consensus, server: one word for a lease", None),
            (&longest, None),
            (&format!("{long}x"), Some("73 characters, at most 72")),
            ("c1d2 Refuse a join", Some("not `scope: what`")),
            ("c1d2 Server: refuse a join", Some("not `scope: what`")),
            ("c1d2 server: ", Some("not `scope: what`")),
            ("c1d2 : refuse", Some("not `scope: what`")),
            ("c1d2 wip", Some("not `scope: what`")),
        ] {
            let fault = fault(commit);
            match expected {
                None => assert_eq!(fault, None),
                Some(part) => assert!(fault.as_ref().is_some_and(|fault| fault.contains(part)), "{commit}: {fault:?}"),
            }
        }
    }
}
