//! The cluster's vocabulary and the schemas of the API.
//!
//! These types are the same in the server, on both ends of the wire and in a program that uses the client. Their JSON
//! names are kebab-case. Every field is always written, and an absent value is `null`: the same types are also encoded
//! in postcard, which has no names.

mod bytes;
mod cluster;
mod config;
mod duration;
mod error;
mod event;
mod ids;
mod node;
mod readonly;
mod status;
mod wal;

pub use bytes::Bytes;
pub use cluster::{ClusterInfo, ClusterLog, ClusterMap};
pub use config::{Config, ConfigUpdate};
pub use duration::Duration;
pub use error::{Error, ErrorCode};
pub use event::{Event, EventKind};
pub use ids::{LogIndex, NodeId, Port, Term};
pub use node::{Leader, Node, NodeRole, NodeState};
pub use readonly::{DatabaseStatements, ReadonlyStatements, StatementHash};
pub use status::{ClusterStatus, DatabaseRole, NodeDatabase, NodeStatus};
pub use wal::{Lsn, WalHistory, WalPosition, WalStart};
