//! The simulation in `consensus/tests/sim`, built so that it is fast and repeatable.

use std::process::Command;

use anyhow::{Context, Result};

use crate::args::Sim;
use crate::cargo::{cargo, root, run as run_command};

/// Runs the histories that are asked for, or checks that broken rules are found.
pub(crate) fn run(options: &Sim) -> Result<()> {
    let mut command = simulation(if options.sabotages { "each_sabotage" } else { "histories_are" });
    command.env("SIM_SEED", options.seed.to_string()).env("SIM_SEEDS", options.seeds.to_string());
    run_command(command).context("run the simulation")
}

/// What CI runs: some histories, some of them twice to see that they repeat, the seeds that once failed, and the check
/// that broken rules are found.
pub(crate) fn all() -> Result<()> {
    let mut command = simulation("");
    command.env("SIM_SEEDS", "200");
    run_command(command).context("run the simulation")
}

fn simulation(test: &str) -> Command {
    let features = ["--package=qluster-consensus", "--test=sim", "--features=simulation", "--profile=sim", "--locked"];
    let mut command = cargo(&["test"]);
    // In a directory of its own: with the flag below, cargo would compile everything else again.
    command.args(features).arg("--target-dir").arg(root().join("target/sim"));
    // Each test uses all cores.
    command.args(["--", "--nocapture", "--test-threads=1", test]);
    // Only with this flag does tokio take a seed for its own random choices.
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    command.env("RUSTFLAGS", format!("{flags} --cfg tokio_unstable").trim());
    command
}
