//! Everything that CI runs, step by step. Steps that are quick or fail often come first.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cargo::{ALL_FEATURES, FEATURES, cargo, run as run_command, succeeds, workspace};
use crate::{
    args, bare, chaos, cli, commits, contrib, deb, demo, deny, deps, generated, guide, install, interrupt, sim,
};

/// A step: its name on the command line, and what it does.
type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 20] = [
    ("install", install::everything),
    ("fmt", || run_command(cargo(&["fmt", "--all", "--check"])).context("run `cargo fmt --all`")),
    ("commits", commits::run),
    ("deps", deps::run),
    ("deny", deny::run),
    ("clippy", clippy),
    ("openapi", || generated::openapi(true)),
    ("client", || generated::client(true)),
    ("tests", all_tests),
    ("doctests", doctests),
    ("rustdoc", rustdoc),
    ("sim", sim::all),
    ("package", package),
    ("cli", cli::run),
    ("demo", || demo::run(&args::Demo { release: false, keep: None, check: Some(1) })),
    ("guide", || guide::run(&[])),
    ("contrib", contrib::run),
    ("deb", deb::test),
    ("bare", bare::run),
    ("chaos", faults),
];

/// How a step went.
struct Outcome {
    step: &'static str,
    took: Duration,
    error: Option<anyhow::Error>,
}

/// The names of all steps, in their order.
pub(crate) fn names() -> Vec<&'static str> {
    STEPS.iter().map(|(name, _)| *name).collect()
}

/// Runs the named steps, or all, until one fails.
pub(crate) fn run(named: &[String]) -> Result<()> {
    interrupt::watch()?;
    let steps = select(named)?;
    let mut outcomes = Vec::new();
    for (step, action) in &steps {
        println!("== {step}");
        let start = Instant::now();
        let error = action().err();
        interrupt::check()?;
        let failed = error.is_some();
        outcomes.push(Outcome { step, took: start.elapsed(), error });
        if failed {
            break;
        }
    }
    println!("\n{}", summary(&outcomes, steps.len()));
    match outcomes.iter().all(|outcome| outcome.error.is_none()) {
        true => Ok(()),
        false => {
            bail!("a step failed; to run it alone: cargo xtask test {}", outcomes.last().map_or("", |last| last.step))
        }
    }
}

/// The steps with these names, in the order in which all steps run.
fn select(named: &[String]) -> Result<Vec<Step>> {
    if let Some(unknown) = named.iter().find(|name| !names().contains(&name.as_str())) {
        bail!("there is no step `{unknown}`; the steps are: {}", names().join(", "));
    }
    Ok(STEPS.into_iter().filter(|(name, _)| named.is_empty() || named.iter().any(|named| named == name)).collect())
}

/// One line for each step, and a line with the counts.
fn summary(outcomes: &[Outcome], steps: usize) -> String {
    let mut lines: Vec<_> = outcomes
        .iter()
        .map(|Outcome { step, took, error }| match error {
            None => format!("{step:<10} ok      {:6.1} s", took.as_secs_f64()),
            Some(error) => format!("{step:<10} FAILED  {:6.1} s  {error:#}", took.as_secs_f64()),
        })
        .collect();
    let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
    let mut count = format!("{} passed, {failed} failed", outcomes.len() - failed);
    if outcomes.len() < steps {
        count += &format!(", {} skipped", steps - outcomes.len());
    }
    lines.push(count);
    lines.join("\n")
}

/// With and without the switches for faults, and the simulation: the usual daemon must compile without their code.
fn clippy() -> Result<()> {
    [FEATURES, ALL_FEATURES].into_iter().try_for_each(|features| {
        let mut command = workspace(&["clippy"], features)?;
        command.args(["--all-targets", "--", "--deny=warnings"]);
        run_command(command)
    })
}

/// All tests but those in documentation: by nextest, which runs them side by side, if it is installed.
fn all_tests() -> Result<()> {
    install::for_tests()?;
    let mut nextest = Command::new("cargo-nextest");
    nextest.args(["nextest", "--version"]);
    run_command(if succeeds(nextest) {
        workspace(&["nextest", "run", "--profile=ci"], FEATURES)?
    } else {
        let mut command = workspace(&["test"], FEATURES)?;
        command.args(["--all-targets", "--no-fail-fast"]);
        command
    })
}

fn doctests() -> Result<()> {
    let mut command = workspace(&["test"], FEATURES)?;
    command.arg("--doc");
    run_command(command)
}

/// The same faults in the same order each time, so that a failure in CI can be repeated.
fn faults() -> Result<()> {
    chaos::run(&args::Chaos {
        // With this seed, most faults that are known to be dangerous come first.
        seed: Some(8701),
        faults: Some(20),
        minutes: None,
        together: 1,
        nodes: 3,
        sabotage: None,
        keep: None,
        release: false,
    })
}

fn rustdoc() -> Result<()> {
    let mut command = workspace(&["doc"], FEATURES)?;
    command.arg("--no-deps").env("RUSTDOCFLAGS", "--deny=warnings");
    run_command(command)
}

/// Packs the client and builds it from the package alone, to check that the package is complete. The crate of its types
/// is packed with it, because no registry has that yet.
fn package() -> Result<()> {
    run_command(cargo(&[
        "package",
        "--package=qluster-consensus",
        "--package=qluster-client",
        "--locked",
        "--allow-dirty",
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_run_in_their_order_and_unknown_ones_are_refused() {
        let selected = select(&["clippy".into(), "fmt".into()]).unwrap();
        assert_eq!(selected.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["fmt", "clippy"]);
        assert_eq!(select(&[]).unwrap().len(), STEPS.len());
        let error = select(&["lint".into()]).err().unwrap().to_string();
        assert!(error.starts_with("there is no step `lint`; the steps are: install, fmt,"), "{error}");
    }

    #[test]
    fn the_summary_ends_with_the_count() {
        let outcome = |step, error| Outcome { step, took: Duration::from_millis(1250), error };
        assert_eq!(summary(&[outcome("fmt", None)], 1), "fmt        ok         1.2 s\n1 passed, 0 failed");
        let failed = [outcome("fmt", None), outcome("deps", Some(anyhow::anyhow!("why")))];
        let expected = "fmt        ok         1.2 s\ndeps       FAILED     1.2 s  why\n1 passed, 1 failed, 1 skipped";
        assert_eq!(summary(&failed, 3), expected);
    }
}
