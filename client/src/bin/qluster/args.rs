//! The commands and options.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueHint};
use qluster_client::model::{Duration, EventKind, LogIndex, NodeId, NodeRole, Port};

use crate::failure::EXIT_CODES;
use crate::output::{Colour, Format};

/// Shows and changes a qluster cluster: high availability for PostgreSQL
#[derive(Debug, Parser)]
#[command(name = "qluster", version, max_term_width = 100, after_help = after_help(), disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The heading of the options that say which cluster is meant.
const CLUSTER: &str = "Cluster";
/// The heading of the options that say how answers are printed.
const OUTPUT: &str = "Output";

/// Where the words of the help and of the answers are explained.
const GLOSSARY: &str = "\
Words such as fit, enroll, lease and term:
  docs/glossary.md explains them. Every node serves it, such as
  http://10.0.0.1:8080/docs/glossary.html";

/// The last paragraphs of the help.
fn after_help() -> String {
    format!("{EXIT_CODES}\n\n{GLOSSARY}")
}

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Address of a node, such as http://10.0.0.1:8080; separate several by commas, or repeat the option. With an
    /// address, a context is used only if you name it. [env: QLUSTER_ADDRESS]
    #[arg(short, long, global = true, value_name = "URL", value_delimiter = ',')]
    #[arg(help_heading = CLUSTER, value_hint = ValueHint::Url)]
    pub(crate) address: Vec<String>,
    /// A cluster from the contexts file [default: its current context; if there is none, http://127.0.0.1:8080] [env:
    /// QLUSTER_CONTEXT]
    #[arg(short, long, global = true, value_name = "NAME", help_heading = CLUSTER)]
    pub(crate) context: Option<String>,
    /// The contexts file [default: ~/.config/qluster/contexts.yaml]
    #[arg(long, global = true, value_name = "FILE", env = "QLUSTER_CONTEXTS", hide_env_values = true, help_heading = CLUSTER)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) contexts: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// How long to try [default: 10s; 30s for changes]
    #[arg(short, long, global = true, value_name = "DURATION", help_heading = CLUSTER)]
    pub(crate) timeout: Option<Duration>,
    /// The format of the answer
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table", help_heading = OUTPUT)]
    pub(crate) output: Format,
    /// Whether to use colour; `auto` uses it at a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = OUTPUT)]
    pub(crate) color: Colour,
    /// Do not ask for confirmation
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
}

/// The credentials that a node may ask for.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Credentials {
    /// The file with the token: a `read` token, or for changes an `admin` token [env: QLUSTER_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = CLUSTER)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,
    /// The file with the certificates (PEM) of the authorities to trust instead of the system's [env: QLUSTER_CA_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = CLUSTER)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) ca_file: Option<PathBuf>,
    /// The file with your certificate (PEM), if the nodes ask for one [env: QLUSTER_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = CLUSTER)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) cert_file: Option<PathBuf>,
    /// The file with the key (PEM) of your certificate [env: QLUSTER_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = CLUSTER)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show which node leads, how far behind the others are, and why a node is not fit
    #[command(visible_alias = "list")]
    Status,
    /// Show the status live, with the newest events below it
    Watch {
        /// How often to ask the nodes; after an event they are asked at once
        #[arg(long, value_name = "DURATION", default_value = "1s")]
        interval: Duration,
    },
    /// Show the leader: its number, its term and its addresses
    Leader,
    /// Make another node the leader, as planned: clients are interrupted for a moment, and nothing is lost
    Switchover {
        /// The node that becomes the leader [default: the fit voter that lags least]
        node: Option<NodeId>,
        /// Only if nobody can lead otherwise: make NODE the leader although acknowledged commits may be lost
        #[arg(long, requires = "node")]
        accept_data_loss: bool,
    },
    /// Add, enroll, declare down and remove nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Show and change the cluster's settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show the events: what happened, and why
    Events {
        /// Keep running, and show new events as they happen
        #[arg(short, long)]
        follow: bool,
        /// Show only the newest N events [default: 100; with --follow, 10]
        #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: Option<u32>,
        /// Only events after this log index
        #[arg(long, value_name = "INDEX", value_parser = index)]
        after: Option<LogIndex>,
        /// Only events of this kind, such as leader-elected; separate several by commas, or repeat the option
        #[arg(short, long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
        kind: Vec<EventKind>,
    },
    /// Show the statements that do not write, as poolers read them
    Readonly,
    /// Show the settings of a running database that differ from PostgreSQL's defaults
    DbConfig {
        /// Only these settings
        name: Vec<String>,
        /// The node of the database [default: the leader]
        #[arg(short, long, value_name = "ID")]
        node: Option<NodeId>,
    },
    /// Run psql at the leader's database
    Connect {
        /// The node of the database [default: the leader]
        #[arg(short, long, value_name = "ID")]
        node: Option<NodeId>,
        /// Only print host and port, in the form that psql takes
        #[arg(long)]
        print: bool,
        /// Arguments for psql, such as: -- -U app -d shop
        #[arg(last = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
    /// Show the cluster map, as poolers read it
    Map {
        /// The same as --output json
        #[arg(long)]
        json: bool,
    },
    /// Manage the contexts: names for clusters, in a file
    #[command(subcommand)]
    Context(ContextCommand),
    /// Print a completion script for a shell: source it, or save it where the shell looks for such scripts
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a directory
    Man {
        /// A directory that exists, such as /usr/share/man/man1
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
        /// Only these settings
        name: Vec<String>,
    },
    /// Change settings; they take effect at once, on all nodes
    Set {
        /// Names and values, such as node-timeout=2s
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = assignment)]
        settings: Vec<(String, String)>,
    },
    /// Change the settings in an editor: $VISUAL, $EDITOR or vi
    Edit,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Show the contexts
    List,
    /// Make a context the current one
    Use {
        /// Name of the context
        name: String,
    },
    /// Add or change a context, by the options that you give: --address, --token-file, --ca-file, …
    Set {
        /// Name of the context; the first one becomes the current one
        name: String,
    },
    /// Remove a context; the files that it names stay
    Remove {
        /// Name of the context
        name: String,
    },
}

fn index(text: &str) -> Result<LogIndex, String> {
    text.parse().map(LogIndex).map_err(|_| "expected a log index (a whole number from 0)".into())
}

fn kind(text: &str) -> Result<EventKind, String> {
    if text == "node-enrolled" {
        return Ok(EventKind::NodeUpgraded);
    }
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as node-timeout=2s")?;
    Ok((name.trim().into(), value.trim().into()))
}

impl Command {
    /// Whether the command changes the cluster.
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
        assert_eq!(kind("node-enrolled"), kind("node-upgraded"));
        assert!(kind("election").unwrap_err().contains("leader-elected"));
    }

    #[test]
    fn a_setting_is_what_comes_before_the_first_equals_sign() {
        assert_eq!(assignment("node-timeout=2s").unwrap(), ("node-timeout".into(), "2s".into()));
        assert!(assignment("node-timeout").is_err());
    }
}
