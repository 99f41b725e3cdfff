//! Starts the node: as it was, as the first of a new cluster, or as a new member of one.
//!
//! The store says whether the node is part of a cluster. So `bootstrap` and `join` do nothing the second time but run,
//! and each step of them may be repeated.

use std::path::Path;
use std::sync::Arc;

use qluster_consensus::env::clock::Clock;
use qluster_consensus::env::random::Random;
use qluster_consensus::model::{Node, NodeId, NodeRole, NodeState};
use qluster_consensus::node::cluster::{Cluster, Parts, known_member};
use qluster_consensus::protocol::database::Database;
use qluster_consensus::raft::store::{Identity, Store, StoreError};
use uuid::Uuid;

use super::known::{is_managed, mismatch};
use super::settings::Settings;
use super::{Start, StartError, join, readonly};
use crate::api::context::Context;
use crate::database::{DatabaseConfig, Passwords, Postgres};
use crate::guard::Deadline;
use crate::metrics::Measured;
use crate::peer::WebSocketTransport;
use crate::security::Security;
use crate::tasks::Tasks;

/// The id of the node that creates a cluster.
const FIRST: NodeId = NodeId(1);

/// Starts the node, and puts its parts into `context`. A node that is not part of a cluster, and is not to become one,
/// only serves the API.
///
/// # Errors
///
/// The store, the database or the cluster cannot be used, or does not fit the settings.
pub(crate) async fn start(
    settings: &Settings,
    start: Start,
    context: &Context,
    tasks: &Tasks,
) -> Result<(), StartError> {
    let Some((store, identity)) = membership(settings, &start, context).await? else {
        tracing::warn!("this node is not part of a cluster yet: `bootstrap` one, or `join` one");
        return Ok(());
    };
    let database = database(settings, &start, context, &store, identity).await?;
    if let Some(postgres) = &database {
        tasks.run("supervising PostgreSQL", postgres.clone().run());
        if context.security.has_secret() {
            tasks.run("keeping the replication password", postgres.clone().keep_password());
        }
        tasks.run_until_done("showing the progress of the clone", join::show_progress(postgres.clone()));
        let _ = context.database.set(postgres.clone());
    }
    let cluster = take_part(settings, &start, context, store, identity, database.clone()).await?;
    tracing::info!(node = %identity.node, cluster = %identity.cluster, "this node takes part in the cluster");
    context.metrics.watch(&cluster);
    let _ = context.cluster.set(cluster.clone());
    if let Some(postgres) = &database {
        guard(postgres, &cluster, tasks);
        readonly::start(postgres, &cluster, tasks);
    }
    let (security, db_port) = (context.security.clone(), settings.database.as_ref().map(|database| database.port));
    let enrolled = join::ask_to_be_enrolled(cluster, database, db_port, settings.api_port, security);
    tasks.run_until_done("enrolling this node", enrolled);
    Ok(())
}

/// The store and the identity of this node, which it gets here if it is new; None if it is not part of a cluster, and
/// is not to become one.
async fn membership(
    settings: &Settings,
    start: &Start,
    context: &Context,
) -> Result<Option<(Store, Identity)>, StartError> {
    let path = settings.store();
    let known = match Store::open(&path) {
        Ok(store) => Some(store),
        Err(StoreError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let identity = known.as_ref().map(Store::identity).transpose()?.flatten();
    // A node that is joining is not a member yet.
    let _ = context.member.set(identity.is_some() || matches!(start, Start::Bootstrap));
    if let (Some(store), Some(identity)) = (&known, identity) {
        return Ok(Some((store.clone(), identity)));
    }
    if let Some(reason) = obstacle(settings, start) {
        return Err(StartError::Refused(reason));
    }
    let store = || known.map_or_else(|| Store::create(&path), Ok);
    let (store, identity) = match start {
        Start::Run => return Ok(None),
        Start::Bootstrap => (store()?, Identity { cluster: Uuid::new_v4(), node: FIRST }),
        Start::Join { url, role } => {
            let url = join::address(url, context.security.has_tls())?;
            let store = store()?;
            let identity = join::ask_to_be_added(url, settings, *role, &context.security).await?;
            tracing::info!(node = %identity.node, cluster = %identity.cluster, "this node was added");
            (store, identity)
        }
    };
    store.set_identity(&identity)?;
    Ok(Some((store, identity)))
}

/// Why a node that is not part of a cluster must not start like this: there is a database that its start would endanger.
fn obstacle(settings: &Settings, start: &Start) -> Option<String> {
    let (store, data) = (settings.store(), settings.database.as_ref()?.data_dir.as_path());
    let (store, data_dir) = (store.display(), data.display());
    match start {
        Start::Run if is_managed(data) => Some(format!(
            "the store {store} is missing, but the database in {data_dir} belongs to a cluster: a start without what \
             this node has promised could lose data. Restore the store, or remove the node from the cluster and join \
             again with an empty data directory"
        )),
        Start::Bootstrap if is_managed(data) => Some(format!(
            "the database in {data_dir} belongs to another cluster, whose store is not at {store}: to adopt it \
             nevertheless, remove its file qluster.conf"
        )),
        Start::Join { role, .. } if role.has_database() && !is_empty(data) => Some(format!(
            "{data_dir} is not empty: a node that joins gets a copy of the cluster's database there. Move away what is \
             there, or give another data directory"
        )),
        _ => None,
    }
}

fn is_empty(data: &Path) -> bool {
    std::fs::read_dir(data).map_or(true, |mut entries| entries.next().is_none())
}

/// Opens the database of this node, and creates it with a new cluster. None for a node whose role has no database.
async fn database(
    settings: &Settings,
    start: &Start,
    context: &Context,
    store: &Store,
    identity: Identity,
) -> Result<Option<Arc<Postgres>>, StartError> {
    let member = known_member(store, &context.versions)?;
    if let Some(mismatch) = member.as_ref().and_then(|(member, promoted)| mismatch(member, *promoted, settings)) {
        return Err(StartError::Refused(mismatch));
    }
    let removed = store.removed()?;
    let role = match (&member, start) {
        (Some((member, _)), _) => member.upgrade_to,
        (None, Start::Join { role, .. }) => *role,
        (None, _) => NodeRole::Voter,
    };
    // The same settings may be on all hosts; a node without a database must not turn what is there into one.
    let has_database = |data: &Path| role.has_database() && (!removed || is_managed(data));
    let Some(database) = settings.database.as_ref().filter(|database| has_database(&database.data_dir)) else {
        return Ok(None);
    };
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
    // A member whose database is gone has lost it, and must not pass a new one off as it.
    let is_new = identity.node == FIRST && member.is_none() && !removed;
    if is_new && matches!(start, Start::Bootstrap) {
        postgres.initialize().await?;
    }
    // Before anything can be promoted.
    guarded(&postgres, settings);
    if removed {
        postgres.rest();
    }
    Ok(Some(postgres))
}

/// The passwords by which standbys are let in from other hosts; None without a secret, which they come from.
fn replication_passwords(security: &Arc<Security>, cluster: Uuid) -> Option<Passwords> {
    let security = security.clone();
    security.has_secret().then(|| Passwords::new(move || security.replication_passwords(cluster)))
}

/// Starts consensus.
async fn take_part(
    settings: &Settings,
    start: &Start,
    context: &Context,
    store: Store,
    identity: Identity,
    database: Option<Arc<Postgres>>,
) -> Result<Cluster, StartError> {
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
    if identity.node != FIRST || !matches!(start, Start::Bootstrap) {
        return Ok(Cluster::start(parts).await?);
    }
    let node = Node {
        id: identity.node,
        ip: settings.ip,
        db_port: settings.database.as_ref().map(|database| database.port),
        api_port: settings.api_port,
        role: NodeRole::Voter,
        upgrade_to: NodeRole::Voter,
        state: NodeState::Up,
        reason: None,
    };
    Ok(Cluster::create(parts, node).await?)
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

/// Keeps the database guarded, if it has a guard.
fn guard(postgres: &Arc<Postgres>, cluster: &Cluster, tasks: &Tasks) {
    let Some(guard) = postgres.guard().cloned() else { return };
    let (postgres, cluster) = (postgres.clone(), cluster.clone());
    tasks.run("keeping the guard", async move {
        let lease = || {
            // The settings are not known if this node's consensus has stopped, and there is no lease then either.
            let config = cluster.config().unwrap_or_default();
            let lease = cluster.lease();
            let fencing = lease.map_or(config.fencing_deadline(), |lease| lease.fencing_deadline());
            Deadline { until: lease.map(|lease| lease.end), fencing, node_timeout: config.node_timeout.get() }
        };
        guard.run(lease, || postgres.may_lead()).await;
    });
}
