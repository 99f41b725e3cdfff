//! `qluster`: the command line for those who run a cluster.
//!
//! - `args`: what can be typed. `contexts`: the file with clusters and credentials. `session`: from both to a client.
//! - `commands`: a file for each group of commands: what is asked, and the table that it is shown as.
//! - `output`: tables, JSON, YAML, colour. `confirm`: asking before what hurts.
//! - `failure`: what can go wrong, its exit code, and what to do next.

mod args;
mod commands;
mod confirm;
mod contexts;
mod failure;
mod output;
mod session;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use failure::Failure;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return Failure::file("start", source).report(),
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = commands::run(args) => ended,
            interrupted = tokio::signal::ctrl_c() => match interrupted {
                Ok(()) => Err(Failure::Interrupted),
                Err(source) => Err(Failure::file("listen to Ctrl-C", source)),
            },
        }
    });
    // Whoever reads an answer from the terminal would keep it waiting.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
