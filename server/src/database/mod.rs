//! The PostgreSQL (or a fork of it) beside the daemon: [`Postgres`] does to it what consensus decides.
//!
//! # How it is directed
//!
//! PostgreSQL is only ever started as a standby. `standby.signal` is always in its data directory, also while it runs as a
//! primary, so whoever starts it gets a standby. What it was told last, its *directions* (fenced, follow that primary, lead),
//! is in `qluster.conf`. A restarted daemon reads it there, and finds the postmaster running, since PostgreSQL outlives its
//! daemon. "Leads" is written before the promotion, and the database counts as a primary until the postmaster has ended: a
//! promotion cannot be called back.
//!
//! # Layout
//!
//! From bottom to top; each uses only those before it:
//!
//! - `data_dir`: the data directory: its files, notes, settings, processes.
//! - `sessions`: connections to this database, and to a primary's.
//! - `status`: what the database is and does now.
//! - `operations`: what the trait `Database` asks for; starting and stopping.
//! - `monitor`: keeping the status fresh, PostgreSQL running, and its settings as they were told.
//!
//! Below all of them are [`crate::os`], [`crate::formats`] and [`crate::guard`]. `mod.rs` puts the parts together.

mod data_dir;
mod error;
mod monitor;
mod operations;
mod sessions;
mod status;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use qluster_consensus::model::{Lsn, NodeId, Port};
use qluster_consensus::protocol::database::{
    Database, DatabaseError, DatabaseRole, DatabaseStatus, Primary, Promotion, SyncRule,
};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_postgres::Client;

pub use self::data_dir::Passwords;
use self::data_dir::staging::{self, Contents};
use self::data_dir::{DataDir, Own, Programs, check_owner};
pub use self::error::Error;
use self::error::Result;
use self::operations::client_access::ClientAccess;
use self::operations::restart_hold::RestartHold;
use self::operations::start::socket_dir;
use self::operations::sync_rule::SyncRuleState;
use self::sessions::client::{QUERY_TIMEOUT, To};
pub use self::sessions::{DbConfig, DbSetting};
use self::sessions::{Place, Sessions};
use self::status::{Findings, Published};
use crate::guard::Guard;
use crate::os;
use crate::os::account::Accounts;
use crate::os::files::Files;

/// Where the database of a node is, and how it runs.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// The node.
    pub node: NodeId,
    /// Address of its host, where standbys reach it.
    pub ip: IpAddr,
    /// Port of the database.
    pub port: Port,
    /// Data directory of PostgreSQL. It need not exist.
    pub data_dir: PathBuf,
    /// Directory of PostgreSQL's programs. Default: the usual places are searched.
    pub bin_dir: Option<PathBuf>,
    /// The account that PostgreSQL runs under, if the daemon is root. Default: `postgres`.
    pub os_user: Option<String>,
    /// Names of programs that a fork has renamed, by PostgreSQL's names.
    pub programs: BTreeMap<String, String>,
    /// Directory for the socket, the log and the notes on this database. It is kept, and not shared.
    pub run_dir: PathBuf,
    /// Passwords of the replication role. None: standbys are let in from loopback only.
    pub replication_passwords: Option<Passwords>,
}

/// The PostgreSQL of a node.
pub struct Postgres {
    data_dir: Arc<DataDir>,
    sessions: Sessions,
    status: Published,
    findings: Findings,
    restart_hold: RestartHold,
    client_access: ClientAccess,
    sync_rule: SyncRuleState,
    /// Held by whoever changes the database.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The process that ends the database if the daemon cannot. Empty if nobody guards it.
    guard: OnceLock<Guard>,
}

/// The right to change the database. It is cloned into work that continues when an operation's future is dropped.
type Turn = Arc<OwnedMutexGuard<()>>;

impl Postgres {
    /// Looks at what is there, and starts nothing. A PostgreSQL that an earlier daemon started is taken over as it runs,
    /// primary or standby.
    ///
    /// # Errors
    ///
    /// If there is no PostgreSQL that fits the data directory, if the data directory belongs to another account or contains
    /// something else, or if a PostgreSQL runs there that was not started by qluster.
    pub async fn open(config: DatabaseConfig) -> Result<Arc<Self>> {
        let data_dir =
            tokio::task::spawn_blocking(move || open_data_dir(config)).await.map_err(|_| Error::Stopping)??;
        let role = match (data_dir.postmaster.pid(), data_dir.contents()?) {
            (Some(_), _) => DatabaseRole::Starting,
            (None, Contents::Database(_)) => DatabaseRole::Stopped,
            (None, Contents::Nothing) => DatabaseRole::Absent,
        };
        let place = Place { socket_dir: data_dir.own.socket_dir.clone(), port: data_dir.own.port.get() };
        let postgres = Arc::new(Self {
            sessions: Sessions::new(place, data_dir.superusers.clone()),
            data_dir: Arc::new(data_dir),
            status: Published::new(role),
            findings: Findings::default(),
            restart_hold: RestartHold::default(),
            client_access: ClientAccess::default(),
            sync_rule: SyncRuleState::default(),
            turn: Arc::default(),
            guard: OnceLock::new(),
        });
        postgres.observe().await;
        Ok(postgres)
    }

    /// Identifies the database and its physical copies: a 64-bit number, as text.
    ///
    /// # Errors
    ///
    /// If the control file cannot be read.
    pub async fn system_identifier(&self) -> Result<String> {
        let data_dir = self.data_dir.clone();
        let read = tokio::task::spawn_blocking(move || data_dir.control.read());
        Ok(read.await.map_err(|_| Error::Stopping)??.system_identifier)
    }

    /// What the database is now.
    pub(crate) fn role(&self) -> DatabaseRole {
        self.status.role()
    }

    /// Asks the running PostgreSQL for its settings.
    ///
    /// # Errors
    ///
    /// If it does not answer within two seconds.
    pub async fn settings(&self) -> Result<DbConfig> {
        let attempted = "report its settings";
        let ask = async {
            // Not by the kept session, which has settings of its own.
            let client = self.sessions.connect(To::Plain).await?;
            sessions::settings::settings(&client).await
        };
        let answer = tokio::time::timeout(QUERY_TIMEOUT, ask).await;
        answer.unwrap_or(Err(Error::Unanswered { attempted, within: QUERY_TIMEOUT }))
    }

    /// A new connection to look into a database, as a role with few rights.
    pub(crate) async fn connect_to_look(&self, database: &str) -> Result<Client> {
        self.sessions.connect_to_look(database).await
    }

    /// Process id of the running postmaster. None if it does not run.
    pub fn pid(&self) -> Option<i32> {
        self.data_dir.postmaster.pid()
    }

    /// The directory of the unix socket, for programs on this host.
    pub fn socket_dir(&self) -> &Path {
        &self.data_dir.own.socket_dir
    }

    async fn turn(&self) -> Turn {
        Arc::new(self.turn.clone().lock_owned().await)
    }

    /// Does blocking work in another thread. The work continues if this future is dropped, and keeps the turn until it ends.
    async fn blocking<T: Send + 'static>(
        &self,
        turn: &Turn,
        work: impl FnOnce(&DataDir) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (data_dir, turn) = (self.data_dir.clone(), turn.clone());
        let work = move || {
            let done = work(&data_dir);
            drop(turn);
            done
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)?
    }
}

fn open_data_dir(config: DatabaseConfig) -> Result<DataDir> {
    let DatabaseConfig { node, ip, port, data_dir, bin_dir, os_user, programs, run_dir, replication_passwords } =
        config;
    if replication_passwords.is_none() && !ip.is_loopback() {
        return Err(Error::Unfit(format!(
            "standbys of {ip} need a password: without one they are let in from loopback only"
        )));
    }
    let accounts = Accounts::find(os_user.as_deref())?;
    let files = Files { accounts };
    let wanted = match staging::look(&data_dir)? {
        Contents::Database(version) => version,
        Contents::Nothing => None,
    };
    let programs = Programs::find(bin_dir.as_deref(), &programs, wanted)?;
    if !data_dir.exists() {
        files.make_dir(&data_dir, 0o700)?;
    }
    // Processes are found by this path, and the kernel names it without links.
    let data_dir = data_dir.canonicalize().map_err(os::Error::file("open", &data_dir))?;
    check_owner(&data_dir, &files)?;
    files.make_dir(&run_dir, 0o750)?;
    let run_dir = run_dir.canonicalize().map_err(os::Error::file("open", &run_dir))?;
    let socket_dir = socket_dir(&run_dir, &files)?;
    let own = Own {
        node,
        ip,
        port,
        socket_dir,
        hba_file: data_dir.join("qluster_hba.conf"),
        ident_file: data_dir.join("qluster_ident.conf"),
        passfile: replication_passwords.as_ref().map(|_| run_dir.join("pgpass")),
    };
    let data_dir = DataDir::new(data_dir, run_dir, programs, files, own, replication_passwords)?;
    match data_dir.postmaster.pid() {
        Some(pid) if !data_dir.settings.exist() => Err(Error::Unfit(format!(
            "the database in {} runs already (process {pid}), not under qluster: stop it, and what starts it",
            data_dir.path.display()
        ))),
        _ => Ok(data_dir),
    }
}

impl Database for Postgres {
    fn status(&self) -> watch::Receiver<DatabaseStatus> {
        self.status.subscribe()
    }

    fn look(&self) -> BoxFuture<'_, ()> {
        self.observe().boxed()
    }

    fn fence(&self, deadline: Duration) -> BoxFuture<'_, Result<Lsn, DatabaseError>> {
        self.do_fence(deadline).map(|done| done.map_err(|error| error.during("fence the database"))).boxed()
    }

    fn demote(&self, deadline: Duration) -> BoxFuture<'_, Result<(), DatabaseError>> {
        self.do_demote(deadline).map(|done| done.map_err(|error| error.during("demote the database"))).boxed()
    }

    fn promote(&self, rule: SyncRule) -> BoxFuture<'_, Result<Promotion, DatabaseError>> {
        self.do_promote(rule).map(|done| done.map_err(|error| error.during("promote the database"))).boxed()
    }

    fn set_sync_rule(&self, rule: SyncRule) -> BoxFuture<'_, Result<(), DatabaseError>> {
        let done = self.do_set_sync_rule(rule);
        done.map(|done| done.map_err(|error| error.during("change the sync rule of the database"))).boxed()
    }

    fn flushed(&self, rule: SyncRule) -> BoxFuture<'_, Result<(), DatabaseError>> {
        let done = self.do_flushed(rule);
        done.map(|done| done.map_err(|error| error.during("have standbys hold what the database wrote"))).boxed()
    }

    fn hold(&self) -> BoxFuture<'_, Result<(), DatabaseError>> {
        let done = self.do_hold();
        done.map(|done| done.map_err(|error| error.during("have standbys hold what the database wrote"))).boxed()
    }

    fn admit(&self) -> BoxFuture<'_, Result<(), DatabaseError>> {
        self.do_admit().map(|done| done.map_err(|error| error.during("let clients in to the database"))).boxed()
    }

    fn follow(&self, primary: Primary) -> BoxFuture<'_, Result<(), DatabaseError>> {
        let attempted = format!("make the database follow node {}", primary.node);
        self.do_follow(primary).map(move |done| done.map_err(|error| error.during(&attempted))).boxed()
    }

    fn rewind(&self, primary: Primary, fork: Lsn) -> BoxFuture<'_, Result<(), DatabaseError>> {
        let attempted = format!("rewind the database to node {}", primary.node);
        self.do_rewind(primary, fork).map(move |done| done.map_err(|error| error.during(&attempted))).boxed()
    }

    fn settle(&self, primary: Primary) -> BoxFuture<'_, Result<(), DatabaseError>> {
        let attempted = format!("follow node {} after a rewind", primary.node);
        self.do_settle(primary).map(move |done| done.map_err(|error| error.during(&attempted))).boxed()
    }

    fn copy_from(&self, primary: Primary) -> BoxFuture<'_, Result<(), DatabaseError>> {
        let attempted = format!("clone the database of node {}", primary.node);
        self.do_clone(primary).map(move |done| done.map_err(|error| error.during(&attempted))).boxed()
    }

    fn stop(&self) -> BoxFuture<'_, Result<Lsn, DatabaseError>> {
        self.do_stop().map(|done| done.map_err(|error| error.during("stop the database"))).boxed()
    }

    fn keep_wal(&self, standbys: BTreeMap<NodeId, Option<Lsn>>) -> BoxFuture<'_, Result<(), DatabaseError>> {
        let done = self.do_keep_wal(standbys);
        done.map(|done| done.map_err(|error| error.during("keep WAL for the standbys of the database"))).boxed()
    }
}
