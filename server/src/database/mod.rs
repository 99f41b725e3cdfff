//! The PostgreSQL (or fork of it) beside the agent: [`Postgres`] does to it what consensus decides.
//!
//! # How it is directed
//!
//! PostgreSQL is only ever started as a standby: `standby.signal` is always there, also in the data directory of a
//! running primary, so that whoever starts it gets a standby. What it was told last, its *directions* (fenced, follow
//! that primary, lead), is in `qluster.conf`; a restarted agent reads it there, and finds the postmaster running, since
//! PostgreSQL outlives its agent. "Leads" is written before the promotion, and counts as a primary until the
//! postmaster has ended: a promotion that was begun cannot be called back.
//!
//! # Layout
//!
//! - `home`: its directories and files; `files`, `conf`, `settings`, `hba`, `control`, `staging`: what they hold.
//! - `account`, `programs`, `process`: who runs what, and which processes there are.
//! - `session`: asking it. `start`: starting and stopping it.
//! - `replication`, `rewind`, `clone`: the operations of the trait. `gate`, `access`: who gets in, and that settings are
//!   loaded. `sync`, `hold`: the sync rule, and what it holds. `slots`: WAL for standbys. `monitor`, `disk`, `lacking`: its
//!   status, and restarts. `drift`: what others did to our settings.
//! - `extension`: what a database that is created has beside PostgreSQL's own. `guarded`: its guard, and what that needs.
//!
//! # Who gets in
//!
//! Readers may use a standby. A promotion shuts everybody out before it, by another form of our `hba_file`, and ends
//! the sessions that there are; [`Database::admit`] writes the open form again. The form survives the agent, since it is
//! in the file. Whatever starts or directs a standby opens it.
//!
//! That a file was written and the postmaster signalled does not say that it was read. Each writing of `qluster.conf`
//! has a stamp of its own, and only a connection that was made since shows what the postmaster has loaded (`gate`).
//!
//! # WAL for standbys
//!
//! Every node has a slot for each other one, so that whoever is promoted has the WAL that the others lack. The agents
//! move these slots; standbys stream without, so that no missing or occupied slot holds them up after a failover.
//!
//! One operation at a time changes anything: whoever does holds the *turn*, and lends it to what goes on blocking when
//! the operation's future is dropped. Only the demote ladder takes no turn: it must not wait.

mod access;
mod account;
mod clone;
mod conf;
mod control;
mod disk;
mod drift;
mod error;
mod extension;
mod files;
mod gate;
mod guarded;
mod hba;
mod hold;
mod home;
mod lacking;
mod monitor;
mod password;
mod paused;
mod process;
mod programs;
mod replication;
mod reported;
mod rewind;
mod session;
mod settings;
mod slots;
mod staging;
mod start;
mod sync;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use qluster_consensus::model::{Lsn, NodeId, Port};
use qluster_consensus::protocol::database::{
    Database, DatabaseError, DatabaseRole, DatabaseStatus, Primary, Promotion, SyncRule,
};
use tokio::sync::{OwnedMutexGuard, watch};

use self::account::Accounts;
pub use self::error::Error;
use self::error::Result;
use self::files::Files;
pub(crate) use self::guarded::end_primary;
use self::home::Home;
pub use self::password::Passwords;
pub(crate) use self::process::is_alive;
use self::programs::Programs;
pub use self::reported::{DbConfig, DbSetting};
use self::session::{Session, To};
use self::settings::Own;
use self::staging::Contents;
use crate::guard::Guard;

/// Where the database of a node is, and how it runs.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// The node.
    pub node: NodeId,
    /// Address of its host, where standbys reach it.
    pub ip: IpAddr,
    /// Port of the database.
    pub port: Port,
    /// Data directory of PostgreSQL; need not exist.
    pub data_dir: PathBuf,
    /// Directory of PostgreSQL's programs; found by itself where there is none.
    pub bin_dir: Option<PathBuf>,
    /// The account that PostgreSQL runs under, where the agent is root. Default: `postgres`.
    pub os_user: Option<String>,
    /// Programs that a fork has renamed, by PostgreSQL's name for them.
    pub programs: BTreeMap<String, String>,
    /// A directory of the agent's for the socket, the log and marks of PostgreSQL. Kept, and not shared.
    pub run_dir: PathBuf,
    /// Passwords of the replication role. Without them, standbys are let in from loopback only.
    pub replication_passwords: Option<Passwords>,
}

/// The PostgreSQL of a node.
pub struct Postgres {
    home: Arc<Home>,
    status: watch::Sender<DatabaseStatus>,
    turn: Arc<tokio::sync::Mutex<()>>,
    session: Mutex<Option<Arc<Session>>>,
    superuser: OnceLock<String>,
    /// Whether it was stopped on purpose, so that it is not started again unasked.
    held: AtomicBool,
    /// Until when it is not started either.
    held_until: Mutex<Option<Instant>>,
    /// That it is being rebuilt, and how far that is.
    rebuilding: Mutex<Option<Option<u8>>>,
    /// Why it is unfit, where the monitor found that out.
    trouble: Mutex<Option<String>>,
    /// Why PostgreSQL would load no settings.
    faulty: Mutex<Option<String>>,
    /// Whose WAL does not come, and why.
    held_up: Mutex<Option<(Primary, String)>>,
    /// Where commits do not wait as the sync rule says.
    unprotected: Mutex<Option<String>>,
    /// The sync rule that is in force, and the postmaster where it is, once that is known.
    in_force: Mutex<Option<(i32, String)>>,
    /// Whether another rule than was told was in force, so that commits may have waited for nobody.
    drifted: AtomicBool,
    /// The last priority that the rule in between used which was set last.
    priorities: Mutex<usize>,
    /// The postmaster that is known to let clients in.
    admits: Mutex<Option<i32>>,
    /// Whether the disk of the data, and that of the WAL, was full at the last look.
    full: Mutex<[bool; 2]>,
    /// The WAL that was found to be gone at the primary, last time it was asked for.
    gone: Mutex<Option<lacking::Gone>>,
    /// Counts what makes an observation that was begun before it stale.
    epoch: watch::Sender<u64>,
    /// Stops it where the agent cannot; none for a database that is guarded by nobody.
    guard: OnceLock<Guard>,
}

/// The right to change the database. Cloned into what goes on when an operation's future is dropped.
type Turn = Arc<OwnedMutexGuard<()>>;

impl Postgres {
    /// Looks at what is there and starts nothing. A PostgreSQL that an earlier agent started is taken over as it runs,
    /// primary or standby.
    pub async fn open(config: DatabaseConfig) -> Result<Arc<Self>> {
        let home = tokio::task::spawn_blocking(move || open_home(config)).await.map_err(|_| Error::Stopping)??;
        let role = match (home.pid(), home.contents()?) {
            (Some(_), _) => DatabaseRole::Starting,
            (None, Contents::Database(_)) => DatabaseRole::Stopped,
            (None, Contents::Nothing) => DatabaseRole::Absent,
        };
        let postgres = Arc::new(Self {
            home: Arc::new(home),
            status: watch::Sender::new(DatabaseStatus::unknown(role)),
            turn: Arc::default(),
            session: Mutex::default(),
            superuser: OnceLock::new(),
            held: AtomicBool::new(false),
            held_until: Mutex::new(None),
            rebuilding: Mutex::default(),
            trouble: Mutex::default(),
            faulty: Mutex::default(),
            held_up: Mutex::default(),
            unprotected: Mutex::default(),
            in_force: Mutex::default(),
            drifted: AtomicBool::new(false),
            priorities: Mutex::default(),
            admits: Mutex::default(),
            full: Mutex::default(),
            gone: Mutex::default(),
            epoch: watch::Sender::new(0),
            guard: OnceLock::new(),
        });
        postgres.observe().await;
        Ok(postgres)
    }

    /// Creates the database (with data checksums, in UTF-8, sorted by code point so that all hosts agree, with
    /// pg_stat_statements where that is installed), unless there is one: that is adopted as it is. Starts nothing.
    pub async fn initialize(&self) -> Result<()> {
        let turn = self.turn().await;
        let contents = self.blocking(&turn, |home| {
            if home.pid().is_none() {
                staging::finish(&home.data_dir)?;
            }
            home.contents()
        });
        if let Contents::Database(_) = contents.await? {
            return Ok(());
        }
        let new = self.blocking(&turn, |home| {
            home.forget_past()?;
            home.files.make_dir(&home.data_dir, 0o700)?;
            let new = staging::new_dir(&home.data_dir);
            home.files.make_dir(&new, 0o700)?;
            Ok(new)
        });
        let new = new.await?;
        let mut command = self.home.files.accounts.command(&self.home.programs.path("initdb"));
        command.current_dir(&self.home.data_dir).arg("-D").arg(&new);
        command.args(["--data-checksums", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]);
        match self.home.own.ip.is_loopback() {
            true => command.args(["--auth-local=trust", "--auth-host=trust"]),
            false => command.args(["--auth-local=peer", "--auth-host=scram-sha-256"]),
        };
        programs::run(command, "initdb", |_| {}).await?;
        self.add_extension(&turn, &new).await?;
        self.blocking(&turn, move |home| staging::install(&home.data_dir, &new)).await?;
        self.observe().await;
        Ok(())
    }

    /// Identifies the database and its physical copies: a number of 64 bits, as text.
    pub async fn system_identifier(&self) -> Result<String> {
        let home = self.home.clone();
        let control = tokio::task::spawn_blocking(move || home.control()).await.map_err(|_| Error::Stopping)??;
        Ok(control.system_identifier)
    }

    /// What it is now.
    pub(crate) fn role(&self) -> DatabaseRole {
        self.status.borrow().role
    }

    /// Asks the running PostgreSQL for its settings.
    pub async fn settings(&self) -> Result<DbConfig> {
        let attempted = "report its settings";
        let ask = async {
            // Not by the kept session, whose own settings would show.
            let client = self.connect(To::Plain).await?;
            session::settings(&client).await
        };
        let answer = tokio::time::timeout(session::PATIENCE, ask).await;
        answer.unwrap_or(Err(Error::Unanswered { attempted, within: session::PATIENCE }))
    }

    /// Process id of the running postmaster.
    pub fn pid(&self) -> Option<i32> {
        self.home.pid()
    }

    /// The directory of the unix socket, for programs on this host.
    pub fn socket_dir(&self) -> &Path {
        &self.home.own.socket_dir
    }

    async fn turn(&self) -> Turn {
        Arc::new(self.turn.clone().lock_owned().await)
    }

    /// Does what blocks elsewhere. It goes on when this future is dropped, and keeps its turn until then.
    async fn blocking<T: Send + 'static>(
        &self,
        turn: &Turn,
        work: impl FnOnce(&Home) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (home, turn) = (self.home.clone(), turn.clone());
        let work = move || {
            let done = work(&home);
            drop(turn);
            done
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)?
    }
}

fn open_home(config: DatabaseConfig) -> Result<Home> {
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
    // Processes are told by it, and the kernel names it without links.
    let data_dir = data_dir.canonicalize().map_err(Error::file("open", &data_dir))?;
    let about = std::fs::metadata(&data_dir).map_err(Error::file("open", &data_dir))?;
    let account = &files.accounts.database;
    if about.uid() != account.uid {
        return Err(Error::Unfit(format!(
            "{} belongs to uid {}, PostgreSQL runs as `{}` (uid {})",
            data_dir.display(),
            about.uid(),
            account.name,
            account.uid
        )));
    }
    files.make_dir(&run_dir, 0o750)?;
    let run_dir = run_dir.canonicalize().map_err(Error::file("open", &run_dir))?;
    let socket_dir = start::socket_dir(&run_dir, &files)?;
    let own = Own {
        node,
        ip,
        port,
        socket_dir,
        hba_file: data_dir.join("qluster_hba.conf"),
        ident_file: data_dir.join("qluster_ident.conf"),
        passfile: replication_passwords.as_ref().map(|_| run_dir.join("pgpass")),
    };
    let home = Home::new(data_dir, run_dir, programs, files, own, replication_passwords)?;
    match home.pid() {
        Some(pid) if !home.has_settings() => Err(Error::Unfit(format!(
            "the database in {} runs already (process {pid}), not under qluster: stop it, and what starts it",
            home.data_dir.display()
        ))),
        _ => Ok(home),
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
