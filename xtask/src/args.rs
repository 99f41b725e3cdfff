//! The command line: which task, with which options.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use lexopt::{Arg, Parser, ValueExt};

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Task {
    Help,
    Demo(Demo),
    /// All steps where none is named.
    Test {
        steps: Vec<String>,
    },
    Openapi {
        check: bool,
    },
    Client {
        check: bool,
    },
    Deps,
    Bench {
        rounds: u32,
    },
}

/// How to run the demo.
#[derive(Debug, PartialEq)]
pub(crate) struct Demo {
    pub(crate) release: bool,
    pub(crate) keep: Option<PathBuf>,
    /// Unattended, with so many kills of the leading node.
    pub(crate) check: Option<u32>,
}

/// Runs of the bench where no number is given: enough for a median that one outlier does not move.
const BENCH_ROUNDS: u32 = 5;

/// The task that `args`, without the program's name, ask for.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Task> {
    let mut parser = Parser::from_args(args);
    let mut given = Given::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Task::Help),
            Arg::Long(name @ ("check" | "release" | "keep" | "rounds")) => {
                let name = name.to_owned();
                match name.as_str() {
                    "check" => given.check = true,
                    "release" => given.release = true,
                    "keep" => given.keep = Some(parser.value().context("--keep takes a directory")?.into()),
                    _ => given.rounds = Some(rounds(parser.value().context("--rounds takes a number")?)?),
                }
                given.options.push(name);
            }
            Arg::Value(word) if given.task.is_none() => given.task = Some(word.string()?),
            Arg::Value(word) => given.words.push(word.string()?),
            other => return Err(other.unexpected()).context("see `cargo xtask --help`"),
        }
    }
    given.task()
}

/// What the command line holds, before it is known whether it goes together.
#[derive(Default)]
struct Given {
    task: Option<String>,
    words: Vec<String>,
    options: Vec<String>,
    check: bool,
    release: bool,
    keep: Option<PathBuf>,
    rounds: Option<u32>,
}

impl Given {
    fn task(self) -> Result<Task> {
        let Some(name) = self.task.as_deref() else {
            self.takes("cargo xtask", &[])?;
            return Ok(Task::Help);
        };
        let takes: &[&str] = match name {
            "demo" => &["check", "release", "keep", "rounds"],
            "test" => &["STEP"],
            "openapi" | "client" => &["check"],
            "bench" => &["rounds"],
            "deps" | "help" => &[],
            _ => bail!("there is no command `{name}`; see `cargo xtask --help`"),
        };
        self.takes(name, takes)?;
        Ok(match name {
            "demo" if self.rounds.is_some() && !self.check => bail!("--rounds goes with --check"),
            "demo" => Task::Demo(Demo {
                release: self.release,
                keep: self.keep,
                check: self.check.then_some(self.rounds.unwrap_or(1)),
            }),
            "test" => Task::Test { steps: self.words },
            "openapi" => Task::Openapi { check: self.check },
            "client" => Task::Client { check: self.check },
            "bench" => Task::Bench { rounds: self.rounds.unwrap_or(BENCH_ROUNDS) },
            "deps" => Task::Deps,
            _ => Task::Help,
        })
    }

    /// Refuses what `task` does not take, rather than to ignore it.
    fn takes(&self, task: &str, known: &[&str]) -> Result<()> {
        if let Some(option) = self.options.iter().find(|option| !known.contains(&option.as_str())) {
            bail!("`{task}` does not take --{option}; see `cargo xtask --help`");
        }
        match self.words.first() {
            Some(word) if !known.contains(&"STEP") => {
                bail!("`{task}` does not take `{word}`; see `cargo xtask --help`")
            }
            _ => Ok(()),
        }
    }
}

fn rounds(value: OsString) -> Result<u32> {
    match value.parse() {
        Ok(0) | Err(_) => bail!("--rounds takes a whole number from 1, got `{}`", value.display()),
        Ok(rounds) => Ok(rounds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn each_command_is_read_with_its_options() {
        let demo = |release, keep: Option<&str>, check| Task::Demo(Demo { release, keep: keep.map(Into::into), check });
        for (line, expected) in [
            ("", Task::Help),
            ("test --help", Task::Help),
            ("demo", demo(false, None, None)),
            ("demo --release --keep /tmp/x", demo(true, Some("/tmp/x"), None)),
            ("demo --check", demo(false, None, Some(1))),
            ("demo --rounds=3 --check", demo(false, None, Some(3))),
            ("test", Task::Test { steps: vec![] }),
            ("test fmt clippy", Task::Test { steps: vec!["fmt".into(), "clippy".into()] }),
            ("openapi --check", Task::Openapi { check: true }),
            ("client", Task::Client { check: false }),
            ("deps", Task::Deps),
            ("bench", Task::Bench { rounds: 5 }),
            ("bench --rounds 7", Task::Bench { rounds: 7 }),
        ] {
            assert_eq!(parsed(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_reason() {
        for (line, expected) in [
            ("dmeo", "no command `dmeo`"),
            ("--check", "does not take --check"),
            ("demo now", "does not take `now`"),
            ("demo --rounds 2", "goes with --check"),
            ("demo --check --rounds 0", "from 1, got `0`"),
            ("bench --rounds many", "from 1, got `many`"),
            ("bench --check", "does not take --check"),
            ("demo --keep", "--keep takes a directory"),
            ("test --fast", "cargo xtask --help"),
        ] {
            let error = format!("{:#}", parsed(line).unwrap_err());
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
