//! `qluster-server`: the daemon beside every PostgreSQL server of a qluster cluster.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use qluster_consensus::model::NodeRole;
use qluster_server::api::openapi;
use qluster_server::daemon;
use qluster_server::site::Site;
use qluster_server::start::settings::{Overrides, Settings};
use qluster_server::start::{Start, recover};
use qluster_server::{guard, inspect, report};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const NAME: &str = "qluster-server";

/// The cores of the host are for its database; the daemon mostly waits.
const WORKER_THREADS: usize = 2;

/// The exit code if another start would fail as well, and somebody has to change something first. sysexits.h calls it
/// EX_CONFIG; the systemd unit does not restart after it.
const EXIT_CONFIG: u8 = 78;

/// Makes PostgreSQL highly available: the nodes of a cluster elect a leader; its database becomes the primary, and the
/// databases of the others follow it.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    overrides: Overrides,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the node
    Run,
    /// Create a cluster and its database, or adopt the database that is there; then run. If the node is part of a cluster
    /// already, only run.
    Bootstrap,
    /// Join a cluster: be added, clone its database, be enrolled; then run. If the node is part of a cluster already, only
    /// run.
    Join {
        /// Address of any node of the cluster, such as http://10.0.0.1:8080
        url: String,
        /// Role of the node once it is enrolled: voter, witness or replica; or listener, which it stays
        #[arg(long, default_value_t = NodeRole::Voter)]
        role: NodeRole,
    },
    /// Go on alone, as a new cluster, after the majority of the nodes is lost for good. The node must not be running.
    ///
    /// Without the flag, it only shows what is known, and which nodes would be given up. Acknowledged commits that this
    /// node has not received are lost. Other nodes that are left must join the new cluster with empty directories: if they
    /// start as they are, they may lead the old cluster beside the new one.
    Recover {
        /// Confirm that the other nodes are lost, or will never be started again with what they have on their disks
        #[arg(long)]
        others_are_gone_for_good: bool,
    },
    /// Print what the store of a node holds: its log, vote, snapshot and what it keeps about its database. Changes nothing.
    ///
    /// The node must not be running. A store that is damaged, or of a newer qluster, is printed as far as it can be read:
    /// then the command fails.
    Inspect {
        /// The node's data directory (--raft-dir if it has one), such as /var/lib/qluster
        dir: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the description of the REST API (OpenAPI)
    Openapi,
    /// Write the documentation as HTML files that need no server; a running node serves it at /docs
    Docs {
        /// Directory for the files; created if it is missing
        dir: PathBuf,
    },
    /// Print a script that completes commands: source it, or put it where your shell looks for such scripts
    #[command(hide = true)]
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// An existing directory, such as /usr/share/man/man1
        dir: PathBuf,
    },
    /// End PostgreSQL when the lease ends; the daemon starts this
    #[command(hide = true)]
    Guard(guard::Arguments),
}

pub(crate) fn main() -> ExitCode {
    let Arguments { overrides, command } = Arguments::parse();
    let start = match command {
        Command::Inspect { dir, json } => return print_store(&dir, json),
        Command::Openapi => return print_openapi(),
        Command::Docs { dir } => return write_docs(&dir),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut std::io::stdout());
            return ExitCode::SUCCESS;
        }
        Command::Man { dir } => return write_man(&dir),
        Command::Guard(arguments) => return guard::run(arguments),
        Command::Recover { others_are_gone_for_good } => return recover(&overrides, others_are_gone_for_good),
        Command::Run => Start::Run,
        Command::Bootstrap => Start::Bootstrap,
        Command::Join { url, role } => Start::Join { url, role },
    };
    log();
    let settings = match Settings::load(&overrides) {
        Ok(settings) => settings,
        Err(error) => {
            fail(&error);
            return EXIT_CONFIG.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let ended = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        Ok::<_, std::io::Error>(daemon::run(settings, start, stop).await)
    });
    // What still runs waits for something that will never come.
    runtime.shutdown_background();
    match ended {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) if error.is_hopeless() => {
            fail(&error);
            EXIT_CONFIG.into()
        }
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error),
    }
}

/// Writes a manual page for the daemon and one for each of its commands.
fn write_man(dir: &Path) -> ExitCode {
    let command = Arguments::command().name(NAME);
    match clap_mangen::generate_to(command, dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn recover(overrides: &Overrides, confirmed: bool) -> ExitCode {
    log();
    let settings = match Settings::load(overrides) {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    match recover::run(&settings, confirmed, |text| print!("{text}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn print_store(dir: &Path, json: bool) -> ExitCode {
    let format = if json { inspect::Format::Json } else { inspect::Format::Text };
    match inspect::run(dir, format, |text| print!("{text}")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn print_openapi() -> ExitCode {
    match openapi::document() {
        Ok(document) => {
            print!("{document}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn write_docs(dir: &Path) -> ExitCode {
    let site = match Site::get() {
        Ok(site) => site,
        Err(error) => return fail(error),
    };
    match site.write(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("qluster-server: {}", report::chain(error));
    ExitCode::FAILURE
}

/// Logs text at a terminal, JSON otherwise. What openraft logs of its inner workings is for those who ask for it.
fn log() {
    let filter = EnvFilter::try_from_env("QLUSTER_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,qluster_server=info,qluster_consensus=info,openraft=error"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().init();
    }
}
