//! The project's own commands: `cargo xtask` lists them.
//!
//! They run the project's binaries and cargo itself, and depend on no crate of the project, so that they compile in
//! seconds and can install what the others need first.

mod args;
mod bare;
mod bench;
mod cargo;
mod chaos;
mod cli;
mod cluster;
mod commits;
mod contrib;
mod deb;
mod demo;
mod deny;
mod deps;
mod generated;
mod guide;
mod http;
mod install;
mod interrupt;
mod postgres;
mod process;
mod sim;
mod test;
mod wait;

use std::process::ExitCode;

use args::Task;

/// The commands, as `cargo xtask` lists them.
const USAGE: &str = "\
The project's own commands.

cargo xtask demo [--release] [--keep DIR]      three nodes on this machine, until Ctrl-C
cargo xtask demo --check [--rounds N]          the same unattended: kills the leading node, checks that nothing is lost
cargo xtask test [STEP...]                     everything that CI runs, or only the steps named
cargo xtask openapi [--check]                  writes openapi.yaml from the server's code, or only compares it
cargo xtask client [--check]                   writes the generated client from openapi.yaml, or only compares it
cargo xtask docs [DIR]                         writes the documentation as a site (to target/site)
cargo xtask guide [PAGE...]                    runs the commands of the guide and of the README, or of some pages; for root
cargo xtask deps                               checks the rules of who may depend on what
cargo xtask deb                                builds the Debian package; prints where it is
cargo xtask upgrade [--keep DIR]               a rolling upgrade of packages under load, for root; checks that nothing is lost
cargo xtask bench [PART...] [--rounds N]       figures, medians of N rounds (5): what an idle agent costs (idle), how fast the
                                               API (api) and the cluster's log (log) are, write gaps in failovers (gaps)
cargo xtask chaos [--seed N] [--faults N] [--minutes N] [--together N] [--nodes 3|5] [--sabotage fence|quorum]
                  [--release] [--keep DIR]       faults of all kinds (20) in a cluster under load, for root; checks that
                                                 nothing that a client was told is lost
cargo xtask sim [--seeds N] [--seed S]         N histories (200) of the real consensus on a simulated network, clock, disk
                                               and database, from seed S on; the same seed is the same history
cargo xtask sim --sabotages                    whether the simulation finds each rule that is broken on purpose

  --release   an optimised build of the daemon
  --keep DIR  use DIR (absent or empty) for data and logs, and leave it there
";

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<interrupt::Interrupted>() => {
            eprintln!("interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Help => {
            print!("{USAGE}\nSteps of test, in their order: {}\n", test::names().join(", "));
            Ok(())
        }
        Task::Demo(options) => demo::run(&options),
        Task::Test { steps } => test::run(&steps),
        Task::Openapi { check } => generated::openapi(check),
        Task::Client { check } => generated::client(check),
        Task::Docs { dir } => guide::site(dir.as_deref()),
        Task::Guide { pages } => guide::run(&pages),
        Task::Deps => deps::run(),
        Task::Deb => deb::run(),
        Task::Upgrade { keep } => deb::upgrade(keep.as_deref()),
        Task::Bench { parts, rounds } => bench::run(&parts, rounds),
        Task::Chaos(options) => chaos::run(&options),
        Task::Sim(options) => sim::run(&options),
    }
}
