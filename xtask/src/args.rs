//! The command line: which task, with which options.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use lexopt::{Arg, Parser, ValueExt};

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Task {
    Help,
    Demo(Demo),
    /// All steps if none is named.
    Test {
        steps: Vec<String>,
    },
    Openapi {
        check: bool,
    },
    Client {
        check: bool,
    },
    /// The documentation as a site, in a directory.
    Docs {
        dir: Option<String>,
    },
    /// The commands of all pages of the guide if no page is named.
    Guide {
        pages: Vec<String>,
    },
    Deps,
    Deb,
    Upgrade {
        keep: Option<PathBuf>,
    },
    /// All parts if none is named.
    Bench {
        parts: Vec<String>,
        rounds: u32,
    },
    Chaos(Chaos),
    Sim(Sim),
}

/// Which histories to simulate.
#[derive(Debug, PartialEq)]
pub(crate) struct Sim {
    pub(crate) seeds: u32,
    pub(crate) seed: u32,
    /// Instead, check that broken rules are found.
    pub(crate) sabotages: bool,
}

/// How to run the demo.
#[derive(Debug, PartialEq)]
pub(crate) struct Demo {
    pub(crate) release: bool,
    pub(crate) keep: Option<PathBuf>,
    /// If set, it runs unattended and kills the leading node this many times.
    pub(crate) check: Option<u32>,
}

/// Which faults to put into a cluster, and how large that is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chaos {
    /// Decides the order of the faults. If absent, the seed is random.
    pub(crate) seed: Option<u64>,
    /// It ends after this many faults or minutes, whichever comes first.
    pub(crate) faults: Option<u32>,
    pub(crate) minutes: Option<u32>,
    /// How many faults at a time.
    pub(crate) together: u32,
    pub(crate) nodes: usize,
    /// A rule that is broken on purpose, which the run must notice.
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) keep: Option<PathBuf>,
    pub(crate) release: bool,
}

impl Chaos {
    /// The command line for this, without the name of the program.
    pub(crate) fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["chaos".into()];
        let numbers = [
            ("--seed", self.seed),
            ("--faults", self.faults.map(u64::from)),
            ("--minutes", self.minutes.map(u64::from)),
            ("--together", Some(self.together.into())),
            ("--nodes", Some(self.nodes as u64)),
        ];
        for (name, number) in numbers.iter().filter_map(|(name, number)| Some((name, (*number)?))) {
            args.extend([OsString::from(name), number.to_string().into()]);
        }
        if let Some(sabotage) = self.sabotage {
            args.extend(["--sabotage".into(), OsString::from(sabotage.name())]);
        }
        if let Some(keep) = &self.keep {
            args.extend(["--keep".into(), keep.clone().into_os_string()]);
        }
        args.extend(self.release.then(|| "--release".into()));
        args
    }
}

/// A rule of the cluster that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sabotage {
    /// A leader that loses its lease stops its database.
    Fence,
    /// A commit waits for a majority.
    Quorum,
}

impl Sabotage {
    const ALL: [Self; 2] = [Self::Fence, Self::Quorum];

    fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Quorum => "quorum",
        }
    }
}

/// How many faults if neither a number nor a time is given: about half of all kinds.
const FAULTS: u32 = 20;

/// How many histories if no number is given.
const SEEDS: u32 = 200;

/// How many rounds of the bench if no number is given: enough for a median that one outlier does not move.
const BENCH_ROUNDS: u32 = 5;

/// The task that `args`, without the name of the program, ask for.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Task> {
    let mut parser = Parser::from_args(args);
    let mut given = Given::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Task::Help),
            Arg::Long(
                name @ ("check" | "release" | "keep" | "rounds" | "seed" | "faults" | "minutes" | "together" | "nodes"
                | "sabotage" | "sabotages" | "seeds"),
            ) => {
                let name = name.to_owned();
                match name.as_str() {
                    "check" => given.check = true,
                    "release" => given.release = true,
                    "sabotages" => given.sabotages = true,
                    "keep" => given.keep = Some(parser.value().context("--keep takes a directory")?.into()),
                    "sabotage" => given.sabotage = Some(sabotage(parser.value().unwrap_or_default())?),
                    _ => {
                        let value = parser.value().with_context(|| format!("--{name} takes a number"))?;
                        given.numbers.insert(name.clone(), number(&name, value)?);
                    }
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

/// The words and options of the command line, before it is checked whether they go together.
#[derive(Default)]
struct Given {
    task: Option<String>,
    words: Vec<String>,
    options: Vec<String>,
    check: bool,
    release: bool,
    sabotages: bool,
    keep: Option<PathBuf>,
    sabotage: Option<Sabotage>,
    numbers: BTreeMap<String, u32>,
}

impl Given {
    fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    fn task(self) -> Result<Task> {
        let Some(name) = self.task.as_deref() else {
            self.takes("cargo xtask", &[])?;
            return Ok(Task::Help);
        };
        let takes: &[&str] = match name {
            "demo" => &["check", "release", "keep", "rounds"],
            "test" => &["STEP"],
            "docs" => &["DIR"],
            "guide" => &["PAGE"],
            "openapi" | "client" => &["check"],
            "bench" => &["PART", "rounds"],
            "chaos" => &["seed", "faults", "minutes", "together", "nodes", "sabotage", "keep", "release"],
            "sim" => &["seeds", "seed", "sabotages"],
            "upgrade" => &["keep"],
            "deps" | "deb" | "help" => &[],
            _ => bail!("there is no command `{name}`; see `cargo xtask --help`"),
        };
        self.takes(name, takes)?;
        let rounds = self.number("rounds");
        Ok(match name {
            "demo" if self.number("rounds").is_some() && !self.check => bail!("--rounds goes with --check"),
            "demo" => Task::Demo(Demo {
                release: self.release,
                keep: self.keep,
                check: self.check.then(|| rounds.unwrap_or(1)),
            }),
            "test" => Task::Test { steps: self.words },
            "openapi" => Task::Openapi { check: self.check },
            "client" => Task::Client { check: self.check },
            "bench" => Task::Bench { parts: self.words, rounds: rounds.unwrap_or(BENCH_ROUNDS) },
            "chaos" => Task::Chaos(self.chaos()?),
            "docs" if self.words.len() > 1 => bail!("`docs` takes one directory; see `cargo xtask --help`"),
            "docs" => Task::Docs { dir: self.words.into_iter().next() },
            "guide" => Task::Guide { pages: self.words },
            "sim" if self.sabotages && !self.numbers.is_empty() => bail!("--sabotages goes without a number"),
            "sim" => Task::Sim(Sim {
                seeds: self.number("seeds").unwrap_or(SEEDS),
                seed: self.number("seed").unwrap_or(1),
                sabotages: self.sabotages,
            }),
            "deps" => Task::Deps,
            "deb" => Task::Deb,
            "upgrade" => Task::Upgrade { keep: self.keep },
            _ => Task::Help,
        })
    }

    fn chaos(self) -> Result<Chaos> {
        let (faults, minutes) = (self.number("faults"), self.number("minutes"));
        let nodes = self.number("nodes").unwrap_or(3);
        if ![3, 5].contains(&nodes) {
            bail!("--nodes takes 3 or 5, got {nodes}");
        }
        Ok(Chaos {
            seed: self.number("seed").map(u64::from),
            faults: faults.or_else(|| minutes.is_none().then_some(FAULTS)),
            minutes,
            together: self.number("together").unwrap_or(1),
            nodes: nodes as usize,
            sabotage: self.sabotage,
            keep: self.keep,
            release: self.release,
        })
    }

    /// Refuses a word or an option that `task` does not take: to ignore it would mislead.
    fn takes(&self, task: &str, known: &[&str]) -> Result<()> {
        if let Some(option) = self.options.iter().find(|option| !known.contains(&option.as_str())) {
            bail!("`{task}` does not take --{option}; see `cargo xtask --help`");
        }
        match self.words.first() {
            Some(word) if !known.iter().any(|known| ["STEP", "DIR", "PAGE", "PART"].contains(known)) => {
                bail!("`{task}` does not take `{word}`; see `cargo xtask --help`")
            }
            _ => Ok(()),
        }
    }
}

fn number(name: &str, value: OsString) -> Result<u32> {
    match value.parse() {
        Ok(0) | Err(_) => bail!("--{name} takes a whole number from 1, got `{}`", value.display()),
        Ok(number) => Ok(number),
    }
}

fn sabotage(value: OsString) -> Result<Sabotage> {
    let found = Sabotage::ALL.into_iter().find(|sabotage| value == sabotage.name());
    found.with_context(|| format!("--sabotage takes `fence` or `quorum`, got `{}`", value.display()))
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
            ("docs", Task::Docs { dir: None }),
            ("docs /tmp/x", Task::Docs { dir: Some("/tmp/x".into()) }),
            ("guide docs/start.md", Task::Guide { pages: vec!["docs/start.md".into()] }),
            ("deps", Task::Deps),
            ("deb", Task::Deb),
            ("upgrade --keep /tmp/x", Task::Upgrade { keep: Some("/tmp/x".into()) }),
            ("bench", Task::Bench { parts: vec![], rounds: 5 }),
            ("bench log --rounds 7", Task::Bench { parts: vec!["log".into()], rounds: 7 }),
            ("sim", Task::Sim(Sim { seeds: 200, seed: 1, sabotages: false })),
            ("sim --seeds 20000 --seed 7", Task::Sim(Sim { seeds: 20000, seed: 7, sabotages: false })),
            ("sim --sabotages", Task::Sim(Sim { seeds: 200, seed: 1, sabotages: true })),
        ] {
            assert_eq!(parsed(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn chaos_is_read_and_asked_for_again_in_the_same_words() {
        let plain = Chaos {
            seed: None,
            faults: Some(20),
            minutes: None,
            together: 1,
            nodes: 3,
            sabotage: None,
            keep: None,
            release: false,
        };
        for (line, expected) in [
            ("chaos", plain.clone()),
            ("chaos --minutes 60", Chaos { faults: None, minutes: Some(60), ..plain.clone() }),
            ("chaos --minutes 60 --faults 7", Chaos { faults: Some(7), minutes: Some(60), ..plain.clone() }),
            ("chaos --seed 4 --together 2 --nodes 5", Chaos { seed: Some(4), together: 2, nodes: 5, ..plain.clone() }),
            (
                "chaos --sabotage quorum --keep /tmp/x --release",
                Chaos { sabotage: Some(Sabotage::Quorum), keep: Some("/tmp/x".into()), release: true, ..plain.clone() },
            ),
        ] {
            assert_eq!(parsed(line).unwrap(), Task::Chaos(expected.clone()), "{line}");
            assert_eq!(parse(expected.args()).unwrap(), Task::Chaos(expected), "{line}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_reason() {
        for (line, expected) in [
            ("dmeo", "no command `dmeo`"),
            ("--check", "does not take --check"),
            ("demo now", "does not take `now`"),
            ("docs one two", "takes one directory"),
            ("demo --rounds 2", "goes with --check"),
            ("demo --check --rounds 0", "from 1, got `0`"),
            ("bench --rounds many", "from 1, got `many`"),
            ("bench --check", "does not take --check"),
            ("demo --keep", "--keep takes a directory"),
            ("chaos --nodes 4", "takes 3 or 5, got 4"),
            ("chaos --sabotage lease", "`fence` or `quorum`, got `lease`"),
            ("chaos --faults", "--faults takes a number"),
            ("sim --sabotages --seed 2", "without a number"),
            ("bench --seed 1", "does not take --seed"),
            ("test --fast", "cargo xtask --help"),
        ] {
            let error = format!("{:#}", parsed(line).unwrap_err());
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
