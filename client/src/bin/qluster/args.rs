//! What can be typed.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueHint};
use qluster_client::model::{Duration, EventKind, LogIndex, NodeId, NodeRole, Port};

use crate::failure::EXIT_CODES;
use crate::output::{Colour, Format};

/// Shows and changes a qluster cluster: high availability for PostgreSQL
#[derive(Debug, Parser)]
#[command(name = "qluster", version, max_term_width = 100, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const CLUSTER: &str = "Which cluster";
const OUTPUT: &str = "Output";

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Address of a node such as http://10.0.0.1:8080; several with commas, or repeated. No context is used then,
    /// unless one is named. [env: QLUSTER_ADDRESS]
    #[arg(short, long, global = true, value_name = "URL", value_delimiter = ',')]
    #[arg(help_heading = CLUSTER, value_hint = ValueHint::Url)]
    pub(crate) address: Vec<String>,
    /// A cluster of the contexts' file [default: its current one; without any, http://127.0.0.1:8080] [env:
    /// QLUSTER_CONTEXT]
    #[arg(short, long, global = true, value_name = "NAME", help_heading = CLUSTER)]
    pub(crate) context: Option<String>,
    /// The contexts' file [default: ~/.config/qluster/contexts.yaml]
    #[arg(long, global = true, value_name = "FILE", env = "QLUSTER_CONTEXTS", hide_env_values = true, help_heading = CLUSTER)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) contexts: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// How long to try [default: 10s; for changes 30s]
    #[arg(short, long, global = true, value_name = "DURATION", help_heading = CLUSTER)]
    pub(crate) timeout: Option<Duration>,
    /// What to print
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table", help_heading = OUTPUT)]
    pub(crate) output: Format,
    /// Whether to use colour; without this, at a terminal and while NO_COLOR is not set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = OUTPUT)]
    pub(crate) color: Colour,
    /// Do not ask before what hurts
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
}

/// What a node may want to see.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Credentials {
    /// A file with the token: `read`, or `admin`, which changes need [env: QLUSTER_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = CLUSTER)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,
    /// A file with the certificates (PEM) of the authorities to trust, in place of the system's [env: QLUSTER_CA_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = CLUSTER)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) ca_file: Option<PathBuf>,
    /// A file with the own certificate (PEM), where nodes ask for one [env: QLUSTER_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = CLUSTER)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) cert_file: Option<PathBuf>,
    /// A file with the key (PEM) of the own certificate [env: QLUSTER_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = CLUSTER)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How the nodes are: who leads, who follows how far behind, and why one is not fit
    #[command(visible_alias = "list")]
    Status,
    /// The same, live, with what happens below
    Watch {
        /// How often to look, beside whenever something happens
        #[arg(long, value_name = "DURATION", default_value = "1s")]
        interval: Duration,
    },
    /// Who leads, and where
    Leader,
    /// Hand the leadership over, as planned: clients are interrupted for a moment, and nothing is lost
    Switchover {
        /// The node that is to lead [default: the fit voter that lags least]
        node: Option<NodeId>,
        /// Where nobody can lead, and only there: make NODE the leader although acknowledged commits may be lost
        #[arg(long, requires = "node")]
        accept_data_loss: bool,
    },
    /// Add, enroll, declare down and remove nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// The cluster's settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// What happened
    Events {
        /// Go on and tell what happens
        #[arg(short, long)]
        follow: bool,
        /// At most so many, the newest [default: 100; with --follow, 10]
        #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: Option<u32>,
        /// Only what came after this log index
        #[arg(long, value_name = "INDEX", value_parser = index)]
        after: Option<LogIndex>,
        /// Only this kind, such as leader-elected; several with commas, or repeated
        #[arg(short, long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
        kind: Vec<EventKind>,
    },
    /// The statements that do not write, as poolers are told them
    Readonly,
    /// The settings of a node's database as it runs
    DbConfig {
        /// Only these settings
        name: Vec<String>,
        /// Whose [default: the leader's]
        #[arg(short, long, value_name = "ID")]
        node: Option<NodeId>,
    },
    /// Run psql at the leader's database
    Connect {
        /// Another node's database
        #[arg(short, long, value_name = "ID")]
        node: Option<NodeId>,
        /// Only print where it is, as psql takes it
        #[arg(long)]
        print: bool,
        /// For psql, such as: -- -U app -d shop
        #[arg(last = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
    /// The cluster map, as poolers see it
    Map {
        /// The same as --output json
        #[arg(long)]
        json: bool,
    },
    /// Which cluster is meant: the contexts' file
    #[command(subcommand)]
    Context(ContextCommand),
    /// Print a script that completes commands: source it, or put it where your shell looks
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    Man {
        /// An existing directory, such as /usr/share/man/man1
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Add a node as a listener; `qluster-server join` on its host does this by itself
    Add {
        /// IPv4 or IPv6 address of its host
        ip: IpAddr,
        /// The role that it gets when it is enrolled: voter, witness or replica; a listener stays one
        #[arg(short, long, default_value_t = NodeRole::Voter)]
        role: NodeRole,
        /// Port of its REST API [default: the leader's]
        #[arg(long, value_name = "PORT")]
        api_port: Option<Port>,
    },
    /// Give a listener the role that it was added for, or bring back a node that is down
    // The API calls this an upgrade, and so did earlier versions of this program.
    #[command(alias = "upgrade")]
    Enroll {
        /// Id of the node
        node: NodeId,
        /// Port of its database [default: the one in the map; if there is none, 5432]
        #[arg(long, value_name = "PORT")]
        db_port: Option<Port>,
        /// Port of its REST API [default: the one in the map]
        #[arg(long, value_name = "PORT")]
        api_port: Option<Port>,
    },
    /// Declare that a node's database has problems: the node has no vote and serves no reads until it is enrolled again
    Down {
        /// Id of the node
        node: NodeId,
    },
    /// Remove a node for good: its id is never used again
    Remove {
        /// Id of the node
        node: NodeId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the settings
    Get {
        /// Only these
        name: Vec<String>,
    },
    /// Change settings; they take effect at once, on all nodes
    Set {
        /// Such as node-timeout=2s
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = assignment)]
        settings: Vec<(String, String)>,
    },
    /// Change them in an editor: $VISUAL, $EDITOR or vi
    Edit,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Show the contexts
    List,
    /// Make one the current one
    Use { name: String },
    /// Write one, with the --address, --token-file, --ca-file, … that are given; the first becomes the current one
    Set { name: String },
    /// Forget one
    Remove { name: String },
}

fn index(text: &str) -> Result<LogIndex, String> {
    text.parse().map(LogIndex).map_err(|_| "expected a log index (a whole number from 0)".into())
}

fn kind(text: &str) -> Result<EventKind, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as node-timeout=2s")?;
    Ok((name.trim().into(), value.trim().into()))
}

impl Command {
    /// Whether it changes the cluster.
    pub(crate) fn changes(&self) -> bool {
        match self {
            Command::Switchover { .. } | Command::Node(_) => true,
            Command::Config(command) => !matches!(command, ConfigCommand::Get { .. }),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn kinds_of_events_are_named_as_in_the_api_and_others_are_refused_with_a_list() {
        assert_eq!(kind("leader-elected").unwrap(), EventKind::LeaderElected);
        assert!(kind("election").unwrap_err().contains("leader-elected"));
    }

    #[test]
    fn a_setting_is_what_comes_before_the_first_equals_sign() {
        assert_eq!(assignment("node-timeout=2s").unwrap(), ("node-timeout".into(), "2s".into()));
        assert!(assignment("node-timeout").is_err());
    }
}
