//! The commands, in one file for each group.

mod config;
mod connect;
mod context;
mod database;
mod events;
mod generate;
mod leader;
mod map;
mod node;
mod status;
mod watch;

use crate::args::{Args, Command};
use crate::contexts;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::session::Session;

/// Runs the command that was typed.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Args { global, command } = args;
    let mut out = Output::new(global.output, global.color);
    let command = match command {
        Command::Context(command) => return context::run(command, &global, out),
        Command::Completion { shell } => return generate::completion(shell, out),
        Command::Man { dir } => return generate::man(&dir),
        command => command,
    };
    if matches!(command, Command::Map { json: true }) {
        out.format = Format::Json;
    }
    let session =
        Session::new(contexts::resolve(&global, |name| std::env::var(name).ok())?, command.changes(), out, global.yes)?;
    match command {
        Command::Status => status::run(&session).await,
        Command::Watch { interval } => watch::run(&session, interval.get()).await,
        Command::Leader => leader::show(&session).await,
        Command::Switchover { node, accept_data_loss: false } => leader::switch_over(&session, node).await,
        Command::Switchover { node: Some(node), .. } => leader::switch_over_with_loss(&session, node).await,
        Command::Switchover { node: None, .. } => {
            Err(Failure::usage("--accept-data-loss needs a node", "qluster switchover NODE --accept-data-loss"))
        }
        Command::Node(command) => node::run(&session, command).await,
        Command::Config(command) => config::run(&session, command).await,
        Command::Events { follow, limit, after, kind } => events::run(&session, follow, limit, after, &kind).await,
        Command::Readonly => database::readonly(&session).await,
        Command::DbConfig { name, node } => database::settings(&session, node, &name).await,
        Command::Connect { node, print, arguments } => connect::run(&session, node, print, &arguments).await,
        Command::Map { .. } => map::run(&session).await,
        // These ask no cluster. They ran above.
        Command::Context(_) | Command::Completion { .. } | Command::Man { .. } => Ok(()),
    }
}
