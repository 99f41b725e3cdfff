//! The project's own commands: `cargo xtask` lists them.
//!
//! They run the project's binaries and cargo itself. They depend on no crate of the project, so they compile in seconds,
//! and can install what the other crates need before those are compiled.

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

cargo xtask demo [--release] [--keep DIR]      starts three nodes on this machine, until Ctrl-C
cargo xtask demo --check [--rounds N]          the same unattended: kills the leading node, checks that no row is lost
cargo xtask test [STEP...]                     runs everything that CI runs, or only the named steps
cargo xtask openapi [--check]                  writes openapi.yaml from the server's code; --check only compares
cargo xtask client [--check]                   writes the generated client from openapi.yaml; --check only compares
cargo xtask docs [DIR]                         writes the documentation as a site, to target/site unless DIR is given
cargo xtask guide [PAGE...]                    runs the commands in the guide and the README, or in some pages; as root
cargo xtask deps                               checks which crate and which room uses which, and where versions are named
cargo xtask deb                                builds the Debian package and prints its path
cargo xtask upgrade [--keep DIR]               upgrades a cluster under load node by node; as root; checks that no row is lost
cargo xtask bench [PART...] [--rounds N]       measures, N times each (5): what an idle daemon costs (idle), how fast the API
                                               (api) and the cluster's log (log) are, write gaps in failovers (gaps)
cargo xtask chaos [--seed N] [--faults N] [--minutes N] [--together N] [--nodes 3|5] [--sabotage fence|quorum]
                  [--release] [--keep DIR]       puts faults of all kinds (20) into a cluster under load; as root; checks that
                                                 no row that a client knows of is lost
cargo xtask sim [--seeds N] [--seed S]         simulates N histories (200) of the real consensus, from seed S on: network,
                                               clock, disk and database are simulated; a seed repeats its history
cargo xtask sim --sabotages                    checks that the simulation finds each rule that is broken on purpose

  --release   an optimised build of the daemon
  --keep DIR  keep data and logs in DIR, which must be absent or empty
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
            print!("{USAGE}\nThe steps of `test`, in order: {}\n", test::names().join(", "));
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
