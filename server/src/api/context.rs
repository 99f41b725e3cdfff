//! What the handlers share, and what they may do in it.

use std::sync::{Arc, OnceLock};

use qluster_consensus::model::Port;
use qluster_consensus::node::cluster::Cluster;
use qluster_consensus::protocol::version::Spoken;

use crate::database::Postgres;
use crate::metrics::Metrics;
use crate::peer::PeerLog;
use crate::security::Security;

/// What the handlers share.
pub struct Context {
    /// Whether the node is part of a cluster, once that is known.
    pub member: OnceLock<bool>,
    /// The node's part in its cluster, once it takes it.
    pub cluster: OnceLock<Cluster>,
    /// The node's database, once it is known, where it has one.
    pub database: OnceLock<Arc<Postgres>>,
    /// What peers did.
    pub peers: Arc<PeerLog>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// What is spoken with them.
    pub versions: Spoken,
    /// The own port, which is the port of others where none is given.
    pub api_port: Port,
    /// Who may do what.
    pub security: Arc<Security>,
}

/// What a request's context has of ours.
pub type Shared = Arc<Context>;
