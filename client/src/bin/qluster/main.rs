//! `qluster`: the command line for people who run a cluster.
//!
//! - `args`: the commands and options. `contexts`: the file with clusters and credentials. `session`: the client that
//!   both lead to.
//! - `commands`: one file for each group of commands, with the requests and the tables.
//! - `output`: tables, JSON, YAML, colour. `confirm`: asks before a command interrupts clients or may lose data.
//! - `failure`: errors, their exit codes and hints.

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
    // A thread that still reads from the terminal would block a normal shutdown.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
