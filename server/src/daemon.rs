//! The daemon of a node: its parts, put together and taken apart.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use dropshot::{ConfigDropshot, ConfigTls, HandlerTaskMode, HttpServer, ServerBuilder};
use qluster_consensus::env::clock::Clock;
use qluster_consensus::env::random::Random;
use qluster_consensus::model::{Node, NodeId, NodeRole, NodeState};
use qluster_consensus::node::cluster::{Cluster, Parts, StartError, known_member};
use qluster_consensus::protocol::database::Database;
use qluster_consensus::protocol::version::{Spoken, Versions};
use qluster_consensus::raft::store::{Identity, Store, StoreError};
use slog::Drain;
use uuid::Uuid;

use crate::api::check;
use crate::api::context::Context;
use crate::api::handlers::Api;
use crate::api::qluster_api_mod;
use crate::database::{DatabaseConfig, Passwords, Postgres};
use crate::guard::Deadline;
use crate::metrics::{Counted, Measured, Metrics};
use crate::os::{self, lock::lock};
use crate::peer::WebSocketTransport;
use crate::security::{Security, SecurityError};
use crate::start::join::{self, JoinError};
use crate::start::known::{is_managed, mismatch};
use crate::start::settings::Settings;
use crate::start::systemd;
use crate::{report, statements};

/// A request's body may be so large, in bytes; operations that take one say so themselves.
const BODY: usize = 1024;

/// Requests that are being answered when the node stops get so long.
const GRACE: Duration = Duration::from_millis(500);

/// So often it is looked whether consensus has ended.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// So often it is told at most that a client and this node could not agree on TLS.
const BETWEEN_TLS_ERRORS: Duration = Duration::from_secs(10);

/// How a node starts.
#[derive(Clone, Debug)]
pub enum Start {
    /// As it ended.
    Run,
    /// As the first of a new cluster, unless it is part of one.
    Bootstrap,
    /// As a new member of the cluster of the node at an address, unless it is part of one.
    Join {
        /// Address of a node's API.
        url: String,
        /// What it is to become.
        role: NodeRole,
    },
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A directory could not be made.
    #[error("cannot create the directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The API cannot be served.
    #[error("cannot serve the API at {address}: {reason}")]
    Serve {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        reason: String,
    },
    /// Credentials are missing or wrong.
    #[error("the node's credentials cannot be used")]
    Security(#[from] SecurityError),
    /// The metrics are wrong: a defect.
    #[error("the node's metrics cannot be made")]
    Metrics(#[from] prometheus::Error),
    /// What is on the disk does not fit what was asked for.
    #[error("{0}")]
    Refused(String),
    /// The store cannot be used.
    #[error("the node's store cannot be used")]
    Store(#[from] StoreError),
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Database(#[from] crate::database::Error),
    /// It could not join.
    #[error("this node could not join the cluster")]
    Join(#[from] JoinError),
    /// Consensus did not start.
    #[error("this node's part in the cluster did not start")]
    Start(#[from] StartError),
    /// Consensus ended by itself.
    #[error("consensus has stopped on this node, which is to be started again: {0}")]
    Stopped(String),
}

impl DaemonError {
    /// Whether starting again does not help: somebody has to change something first.
    pub fn is_hopeless(&self) -> bool {
        matches!(
            self,
            Self::Refused(_)
                | Self::Security(_)
                | Self::Store(StoreError::Newer { .. } | StoreError::Version(_))
                | Self::Start(StartError::Store(StoreError::Version(_)))
        ) || matches!(self, Self::Join(error) if error.is_hopeless())
    }
}

/// Runs a node until `stop` is done. PostgreSQL outlives its agent: it goes on as it is, a primary until its lease ends.
pub async fn run(settings: Settings, start: Start, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
    os::limits::raise_open_files();
    for path in [&settings.data_dir, &settings.raft_dir] {
        std::fs::create_dir_all(path).map_err(|source| DaemonError::Directory { path: path.clone(), source })?;
    }
    let security = Security::load(settings.security.clone(), settings.ip)?;
    let context = Arc::new(Context {
        member: OnceLock::new(),
        cluster: OnceLock::new(),
        database: OnceLock::new(),
        peers: Arc::default(),
        metrics: Metrics::new()?,
        versions: Spoken::new(known_versions()),
        api_port: settings.api_port,
        security: security.clone(),
    });
    // The API is there before the node is a member: whoever adds it can reach it, and learns what it lacks.
    let server = serve(&settings, context.clone())?;
    tracing::info!(address = %settings.api_address(), "the API is served");
    let ended = {
        let node = node(&settings, start, &context);
        let watchdog = systemd::feed_watchdog(|| drop(context.cluster.get().map(Cluster::map)));
        let node = async {
            node.await?;
            systemd::ready(&status(&context));
            std::future::pending().await
        };
        let life = async {
            tokio::select! {
                () = stop => Ok(()),
                () = watchdog => Ok(()),
                reason = consensus_ended(&context) => Err(DaemonError::Stopped(reason)),
                failed = node => failed,
            }
        };
        let server = &server;
        let refresh = |tls| async move {
            if let Err(reason) = server.refresh_tls(&ConfigTls::Dynamic(tls)).await {
                tracing::error!(reason, "the new certificate is not in force");
            }
        };
        tokio::select! {
            ended = life => ended,
            never = security.follow_changes(refresh) => match never {},
        }
    };
    systemd::stopping();
    tracing::info!("stops; the database goes on as it is");
    if let Some(guard) = context.database.get().and_then(|postgres| postgres.guard()) {
        // Before the lease is given up: a primary may go on until it ends.
        guard.leave();
    }
    if let Some(cluster) = context.cluster.get()
        && let Err(error) = cluster.shutdown().await
    {
        tracing::warn!(reason = report::chain(&error), "consensus did not end in good order");
    }
    // Connections of peers and long polls end when the process does.
    if let Ok(Err(reason)) = tokio::time::timeout(GRACE, server.close()).await {
        tracing::warn!(reason, "the API did not end in good order");
    }
    ended
}

/// Waits until consensus has ended by itself, and tells why: the store is on a disk that is full, say. Such a node is of no
/// use until it starts anew.
async fn consensus_ended(context: &Context) -> String {
    loop {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        if let Some(reason) = context.cluster.get().and_then(Cluster::stopped) {
            return reason;
        }
    }
}

/// The node in a line, for systemd.
fn status(context: &Context) -> String {
    match context.cluster.get().map(Cluster::identity) {
        Some(Identity { cluster, node }) => format!("node {node} of cluster {cluster}"),
        None => "not part of a cluster yet: `bootstrap` one, or `join` one".into(),
    }
}

fn serve(settings: &Settings, context: Arc<Context>) -> Result<HttpServer<Arc<Context>>, DaemonError> {
    let address = settings.api_address();
    let failed = |reason: String| DaemonError::Serve { address, reason };
    let mut api = qluster_api_mod::api_description::<Api>().map_err(|error| failed(error.to_string()))?;
    check::add_methods(&mut api).map_err(|error| failed(report::chain(&error)))?;
    let config = ConfigDropshot {
        bind_address: address,
        default_request_body_max_bytes: BODY,
        // A change that was begun is finished, whether or not the caller waits for it.
        default_handler_task_mode: HandlerTaskMode::Detached,
        ..ConfigDropshot::default()
    };
    let version = semver::Version::new(0, 0, 0);
    let paths = api.openapi("", version).json().unwrap_or_default();
    let paths = paths["paths"].as_object().into_iter().flat_map(|paths| paths.keys().cloned());
    let paths = paths.chain(["/", "/docs", "/docs/{path}", "/page/{file}", "/peer"].map(String::from)).collect();
    let drain = tracing_slog::TracingSlogDrain.filter(told_of());
    let drain = Counted::new(drain, context.metrics.clone(), paths);
    let log = slog::Logger::root(slog::Fuse(drain), slog::o!());
    let tls = context.security.keys().tls.as_ref().map(|tls| ConfigTls::Dynamic(tls.server.clone()));
    ServerBuilder::new(api, context, log).config(config).tls(tls).start().map_err(|error| failed(report::chain(&error)))
}

/// Which records of the HTTP server are told. Not that a request was cancelled: long polls end so all the time. And that
/// a client and this node could not agree on TLS it says each time, and some ask many times a second.
fn told_of() -> impl Fn(&slog::Record) -> bool {
    let last: Mutex<Option<Instant>> = Mutex::default();
    move |record| {
        let text = record.msg().to_string();
        if text.contains("cancelled") {
            return false;
        }
        if record.level() != slog::Level::Warning || !text.starts_with("tls accept err") {
            return true;
        }
        let (mut last, now) = (lock(&last), Instant::now());
        let due = last.is_none_or(|last| now.duration_since(last) >= BETWEEN_TLS_ERRORS);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// Makes the node a member where that is asked for, and starts it.
async fn node(settings: &Settings, start: Start, context: &Context) -> Result<(), DaemonError> {
    let path = settings.store();
    let known = match Store::open(&path) {
        Ok(store) => Some(store),
        Err(StoreError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let identity = known.as_ref().map(Store::identity).transpose()?.flatten();
    // A node that is joining is not yet one.
    let _ = context.member.set(identity.is_some() || matches!(start, Start::Bootstrap));
    let data = settings.database.as_ref().map(|database| database.data_dir.as_path());
    let (store, identity) = match (known, identity, &start) {
        (Some(store), Some(identity), _) => (store, identity),
        (_, _, Start::Run) => {
            if let Some(data) = data.filter(|data| is_managed(data)) {
                return Err(DaemonError::Refused(format!(
                    "the store {} is missing, but the database in {} belongs to a cluster: starting without what this \
                     node has promised could lose data. Restore the store, or remove the node from the cluster and \
                     join anew with an empty data directory",
                    path.display(),
                    data.display()
                )));
            }
            tracing::warn!("this node is not part of a cluster yet: `bootstrap` one, or `join` one");
            return Ok(());
        }
        (store, _, Start::Bootstrap) => {
            if let Some(data) = data.filter(|data| is_managed(data)) {
                return Err(DaemonError::Refused(format!(
                    "the database in {} belongs to another cluster, whose store is not at {}: to adopt it all the \
                     same, remove its file qluster.conf",
                    data.display(),
                    path.display()
                )));
            }
            let store = store.map_or_else(|| Store::create(&path), Ok)?;
            let identity = Identity { cluster: Uuid::new_v4(), node: NodeId(1) };
            store.set_identity(&identity)?;
            (store, identity)
        }
        (store, _, Start::Join { url, role }) => {
            let url = join::address(url, context.security.has_tls())?;
            let has_database = role.has_database();
            if let Some(data) = data.filter(|data| has_database && !is_empty(data)) {
                return Err(DaemonError::Refused(format!(
                    "{} is not empty: a node that joins gets a copy of the cluster's database there. Move away what \
                     is there, or give another data directory",
                    data.display()
                )));
            }
            let store = store.map_or_else(|| Store::create(&path), Ok)?;
            let identity = join::ask_for_a_place(url, settings, *role, &context.security).await?;
            store.set_identity(&identity)?;
            tracing::info!(node = %identity.node, cluster = %identity.cluster, "this node was added");
            (store, identity)
        }
    };
    let member = known_member(&store, &context.versions)?;
    if let Some(mismatch) = member.as_ref().and_then(|(member, promoted)| mismatch(member, *promoted, settings)) {
        return Err(DaemonError::Refused(mismatch));
    }
    let removed = store.removed()?;
    let role = match (&member, &start) {
        (Some((member, _)), _) => member.upgrade_to,
        (None, Start::Join { role, .. }) => *role,
        (None, _) => NodeRole::Voter,
    };
    let has_database = role.has_database() && (!removed || data.is_some_and(is_managed));
    // The same settings may be on all hosts; a node without a database must not turn what is there into one.
    let database = match settings.database.as_ref().filter(|_| has_database) {
        Some(database) => {
            let postgres = Postgres::open(DatabaseConfig {
                node: identity.node,
                ip: settings.ip,
                port: database.port,
                data_dir: database.data_dir.clone(),
                bin_dir: database.bin_dir.clone(),
                os_user: database.os_user.clone(),
                programs: database.programs.clone(),
                run_dir: settings.data_dir.join("run"),
                replication_passwords: replication_passwords(&context.security, identity.cluster),
            })
            .await?;
            Some(postgres)
        }
        None => None,
    };
    // A member whose database is gone has lost it, and must not pass a new one off as it.
    let is_new = identity.node == NodeId(1) && member.is_none() && !removed;
    if let (Some(postgres), Start::Bootstrap) = (&database, &start)
        && is_new
    {
        postgres.initialize().await?;
    }
    if let Some(postgres) = &database {
        // Before anything can be promoted.
        guarded(postgres, settings);
        if removed {
            postgres.rest();
        }
        tokio::spawn(postgres.clone().run());
        tokio::spawn(postgres.clone().keep_password());
        tokio::spawn(join::show_progress(postgres.clone()));
        let _ = context.database.set(postgres.clone());
    }
    let kept = database.clone();
    let transport =
        WebSocketTransport::new(identity, context.security.clone(), context.peers.clone(), context.versions.clone());
    context.metrics.watch_store(&store);
    let parts = Parts {
        store,
        transport: Arc::new(Measured { transport, metrics: context.metrics.clone() }),
        database: database.map(directed),
        clock: Clock::boottime(),
        random: Random::from_os(),
        versions: context.versions.clone(),
    };
    let db_port = settings.database.as_ref().map(|database| database.port);
    let cluster = match start {
        Start::Bootstrap if identity.node == NodeId(1) => {
            let node = Node {
                id: identity.node,
                ip: settings.ip,
                db_port,
                api_port: settings.api_port,
                role: NodeRole::Voter,
                upgrade_to: NodeRole::Voter,
                state: NodeState::Up,
                reason: None,
            };
            Cluster::create(parts, node).await?
        }
        _ => Cluster::start(parts).await?,
    };
    tracing::info!(node = %identity.node, cluster = %identity.cluster, "takes part in the cluster");
    context.metrics.watch(&cluster);
    let _ = context.cluster.set(cluster.clone());
    if let Some(postgres) = kept {
        tokio::spawn(guard(postgres.clone(), cluster.clone()));
        tokio::spawn(statements::run(postgres, cluster.clone()));
    }
    let (security, database) = (context.security.clone(), context.database.get().cloned());
    tokio::spawn(join::ask_for_the_upgrade(cluster, database, db_port, settings.api_port, security));
    Ok(())
}

/// By which standbys are let in, beyond loopback as well: where there is a secret.
fn replication_passwords(security: &Arc<Security>, cluster: Uuid) -> Option<Passwords> {
    let security = security.clone();
    security.has_secret().then(|| Passwords::new(move || security.replication_passwords(cluster)))
}

/// The versions that this program knows.
fn known_versions() -> Versions {
    #[cfg(feature = "faults")]
    return crate::faults::known_versions();
    #[cfg(not(feature = "faults"))]
    Versions::KNOWN
}

/// Gives the database its guard.
fn guarded(postgres: &Postgres, settings: &Settings) {
    #[cfg(feature = "faults")]
    if crate::faults::no_fence() {
        return;
    }
    postgres.guarded_with(settings.watchdog.clone());
}

/// The database as consensus directs it.
fn directed(postgres: Arc<Postgres>) -> Arc<dyn Database> {
    #[cfg(feature = "faults")]
    return crate::faults::database(postgres);
    #[cfg(not(feature = "faults"))]
    postgres
}

/// Keeps the database guarded, where it has a guard.
async fn guard(postgres: Arc<Postgres>, cluster: Cluster) {
    let Some(guard) = postgres.guard().cloned() else { return };
    let lease = || {
        // It is not told where this node's consensus has stopped, and there is no lease then either.
        let config = cluster.config().unwrap_or_default();
        let lease = cluster.lease();
        let fencing = lease.map_or(config.fencing_deadline(), |lease| lease.fencing_deadline());
        Deadline { until: lease.map(|lease| lease.end), fencing, node_timeout: config.node_timeout.get() }
    };
    guard.run(lease, || postgres.may_lead()).await;
}

fn is_empty(data: &Path) -> bool {
    std::fs::read_dir(data).map_or(true, |mut entries| entries.next().is_none())
}
