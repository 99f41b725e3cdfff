//! The daemon of a node: its parts are put together, run until one of them fails or the daemon is stopped, and end.
//!
//! # Layout
//!
//! - `http`: the server of the REST API, its listener, its TLS and what of its log is passed on.
//! - [`crate::start`]: what starts the node itself, while the API is served already.
//! - `crate::tasks`: the tasks that run until the daemon ends.

mod http;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use qluster_consensus::node::cluster::Cluster;
use qluster_consensus::protocol::version::{Spoken, Versions};
use qluster_consensus::raft::store::Identity;

use self::http::HttpServer;
use crate::api::context::Context;
use crate::metrics::Metrics;
use crate::security::{Security, SecurityError};
use crate::start::settings::Settings;
use crate::start::{Start, StartError, node, systemd};
pub use crate::tasks::TaskError;
use crate::tasks::Tasks;
use crate::{os, report};

/// How long requests that are being answered may go on when the daemon stops.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// How often the daemon checks whether consensus has ended.
const CONSENSUS_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A directory could not be created.
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
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// Credentials are missing or wrong.
    #[error("the node's credentials cannot be used")]
    Security(#[from] SecurityError),
    /// The metrics are wrong: a defect.
    #[error("the node's metrics cannot be created")]
    Metrics(#[from] prometheus::Error),
    /// The node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Consensus ended by itself: its store is on a full disk, say.
    #[error("consensus has stopped on this node, which must be started again: {0}")]
    Stopped(String),
    /// The HTTP server ended by itself.
    #[error("the API is not served any more: {0}")]
    Unserved(String),
    /// A task panicked or ended: a defect.
    #[error("the daemon cannot go on without one of its tasks")]
    Task(#[from] TaskError),
}

impl DaemonError {
    /// Whether another start would fail as well: somebody has to change something first.
    pub fn is_hopeless(&self) -> bool {
        match self {
            Self::Security(_) => true,
            Self::Start(error) => error.is_hopeless(),
            Self::Directory { .. } | Self::Serve { .. } | Self::Metrics(_) => false,
            Self::Stopped(_) | Self::Unserved(_) | Self::Task(_) => false,
        }
    }
}

/// Runs a node until `stop` is done. PostgreSQL outlives its daemon: it goes on as it is, a primary until its lease ends.
///
/// # Errors
///
/// The node could not start, or one of its parts failed: consensus, the HTTP server, or a task.
pub async fn run(settings: Settings, start: Start, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
    run_with(Tasks::new(), settings, start, stop).await
}

async fn run_with(
    tasks: Tasks,
    settings: Settings,
    start: Start,
    stop: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
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
        security,
    });
    // The API is there before the node is a member: whoever adds it can reach it, and learns what it lacks.
    let server = http::serve(&settings, context.clone())?;
    tracing::info!(address = %settings.api_address(), "the API is served");
    // In a box: all that a start may do would be part of the size of every future above it.
    let node = Box::pin(node::start(&settings, start, &context, &tasks));
    let ended = live(&context, &tasks, &server, node, stop).await;
    stop_parts(&context, server).await;
    ended
}

/// Waits until `stop` is done, or a part of the node has failed.
async fn live(
    context: &Context,
    tasks: &Tasks,
    server: &HttpServer,
    node: impl Future<Output = Result<(), StartError>>,
    stop: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let started = async {
        node.await?;
        systemd::ready(&status(context));
        std::future::pending::<Result<_, StartError>>().await
    };
    let watchdog = systemd::feed_watchdog(|| drop(context.cluster.get().map(Cluster::map)));
    tokio::select! {
        () = stop => Ok(()),
        failed = started => Ok(failed?),
        error = tasks.failed() => Err(error.into()),
        reason = consensus_ended(context) => Err(DaemonError::Stopped(reason)),
        reason = server.ended() => Err(DaemonError::Unserved(reason)),
        never = watchdog => match never {},
        never = context.security.follow_changes(|tls| server.refresh_tls(tls)) => match never {},
    }
}

/// Waits until consensus has ended by itself, and returns why. Such a node is of no use until it starts again.
async fn consensus_ended(context: &Context) -> String {
    loop {
        tokio::time::sleep(CONSENSUS_CHECK_INTERVAL).await;
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

/// Ends what runs, but for the database.
async fn stop_parts(context: &Context, server: HttpServer) {
    systemd::stopping();
    tracing::info!("the daemon stops; the database goes on as it is");
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
    if let Ok(Err(reason)) = tokio::time::timeout(SHUTDOWN_GRACE, server.close()).await {
        tracing::warn!(reason, "the HTTP server did not end in good order");
    }
}

/// The versions that this program knows.
fn known_versions() -> Versions {
    #[cfg(feature = "faults")]
    return crate::faults::known_versions();
    #[cfg(not(feature = "faults"))]
    Versions::KNOWN
}

#[cfg(test)]
mod tests {
    use qluster_consensus::model::Port;

    use super::*;

    fn settings(dir: &std::path::Path) -> Settings {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        Settings {
            ip: [127, 0, 0, 1].into(),
            api_port: Port::new(port).unwrap(),
            data_dir: dir.into(),
            raft_dir: dir.into(),
            database: None,
            watchdog: Default::default(),
            security: Default::default(),
        }
    }

    async fn ended(tasks: Tasks, start: Start, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
        let dir = tempfile::tempdir().unwrap();
        let running = run_with(tasks, settings(dir.path()), start, stop);
        tokio::time::timeout(Duration::from_secs(30), running).await.expect("the daemon did not end")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_task_that_panics_ends_the_daemon_and_a_restart_may_help() {
        for start in [Start::Run, Start::Bootstrap] {
            let tasks = Tasks::new();
            tasks.run("sweeping", async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                panic!("no broom")
            });
            let error = ended(tasks, start, std::future::pending()).await.unwrap_err();
            assert!(!error.is_hopeless());
            let told = report::chain(&error);
            assert_eq!(
                told,
                "the daemon cannot go on without one of its tasks: the task `sweeping` panicked: no broom"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_daemon_whose_tasks_go_on_ends_when_it_is_stopped() {
        let stop = tokio::time::sleep(Duration::from_millis(300));
        ended(Tasks::new(), Start::Bootstrap, stop).await.unwrap();
    }
}
