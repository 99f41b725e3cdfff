//! The daemon's tasks. Each is watched: a task that panics, or ends although it should go on, ends the daemon with its
//! name and the reason, and systemd starts the daemon again. A daemon that goes on without one of its tasks would look
//! healthy and, say, no longer start its database.
//!
//! All tasks of this crate are started here, but those of an operation of the database or of its guard, which looks at
//! their ends itself. A test finds a `tokio::spawn` elsewhere.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::os::lock::lock;

/// Why a task is not running any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It panicked.
    #[error("the task `{name}` panicked: {reason}")]
    Panicked {
        /// What the task does.
        name: String,
        /// The panic's text.
        reason: String,
    },
    /// It returned, although it should run as long as the daemon.
    #[error("the task `{name}` ended, although it should run as long as the daemon")]
    Ended {
        /// What the task does.
        name: String,
    },
}

/// The tasks that run as long as the daemon. They are cancelled when this is dropped.
#[derive(Debug)]
pub(crate) struct Tasks {
    running: Mutex<JoinSet<()>>,
    /// The first failure.
    failure: watch::Sender<Option<TaskError>>,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { running: Mutex::default(), failure: watch::Sender::new(None) }
    }

    /// Starts a task that never returns: its end is a failure, as its panic is.
    pub(crate) fn run(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let ended = TaskError::Ended { name: name.into() };
        self.start(name, task.map(|()| Some(ended)));
    }

    /// Starts a task that returns when its work is done: only its panic is a failure.
    pub(crate) fn run_until_done(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        self.start(name, task.map(|()| None));
    }

    fn start(&self, name: &str, task: impl Future<Output = Option<TaskError>> + Send + 'static) {
        let (name, failure) = (name.to_owned(), self.failure.clone());
        let watched = async move {
            if let Some(error) = caught(&name, task).await.unwrap_or_else(Some) {
                failure.send_if_modified(|first| {
                    let is_first = first.is_none();
                    first.get_or_insert(error);
                    is_first
                });
            }
        };
        lock(&self.running).spawn(watched);
    }

    /// Waits until a task has failed.
    pub(crate) async fn failed(&self) -> TaskError {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|first| first.clone()) {
            Ok(Some(error)) => error,
            // The sender lives as long as this.
            _ => std::future::pending().await,
        }
    }
}

/// A task that belongs to something, a connection say, and is cancelled when this is dropped. Its panic is logged and
/// ends that thing, not the daemon: whoever uses the thing notices its end, and makes another one.
#[derive(Debug)]
pub(crate) struct Owned(#[expect(dead_code, reason = "held to be dropped")] JoinSet<()>);

impl Owned {
    pub(crate) fn start(name: String, task: impl Future<Output = ()> + Send + 'static) -> Self {
        let mut set = JoinSet::new();
        set.spawn(async move {
            logged(&name, task).await;
        });
        Self(set)
    }
}

/// The result of a future that belongs to something, a connection say; None if it panicked, which is logged.
pub(crate) async fn logged<T>(name: &str, task: impl Future<Output = T>) -> Option<T> {
    let done = caught(name, task).await;
    done.inspect_err(|error| tracing::error!("{error}")).ok()
}

async fn caught<T>(name: &str, task: impl Future<Output = T>) -> Result<T, TaskError> {
    // What the task shares with others may be half changed: locks ignore poison where that is safe, and the daemon ends.
    let done = AssertUnwindSafe(task).catch_unwind().await;
    done.map_err(|panic| TaskError::Panicked { name: name.into(), reason: text(panic.as_ref()) })
}

/// A panic's text.
fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a text").into()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use super::*;

    async fn failure_of(start: impl FnOnce(&Tasks)) -> Option<TaskError> {
        let tasks = Tasks::new();
        start(&tasks);
        tokio::time::timeout(Duration::from_millis(200), tasks.failed()).await.ok()
    }

    #[tokio::test]
    async fn a_task_that_panics_or_ends_is_a_failure_with_its_name() {
        let panicked = |reason: &str| Some(TaskError::Panicked { name: "sweep".into(), reason: reason.into() });
        assert_eq!(failure_of(|tasks| tasks.run("sweep", async { panic!("no broom") })).await, panicked("no broom"));
        let late = async {
            tokio::task::yield_now().await;
            panic!("no broom in {} rooms", 3)
        };
        assert_eq!(failure_of(|tasks| tasks.run_until_done("sweep", late)).await, panicked("no broom in 3 rooms"));
        let ended = Some(TaskError::Ended { name: "sweep".into() });
        assert_eq!(failure_of(|tasks| tasks.run("sweep", async {})).await, ended);
        assert_eq!(failure_of(|tasks| tasks.run_until_done("sweep", async {})).await, None);
        assert_eq!(failure_of(|tasks| tasks.run("sweep", std::future::pending())).await, None);
    }

    #[tokio::test]
    async fn the_first_failure_is_the_one_that_counts() {
        let tasks = Tasks::new();
        tasks.run("first", async {});
        let first = tasks.failed().await;
        tasks.run("second", async {});
        tokio::task::yield_now().await;
        assert_eq!(tasks.failed().await, first);
    }

    #[tokio::test]
    async fn tasks_are_cancelled_with_their_owner() {
        let tasks = Tasks::new();
        let (held, dropped) = tokio::sync::oneshot::channel::<()>();
        tasks.run("holder", async move {
            let _held = held;
            std::future::pending().await
        });
        let (held, owned_dropped) = tokio::sync::oneshot::channel::<()>();
        let owned = Owned::start("holder".into(), async move {
            let _held = held;
            std::future::pending().await
        });
        drop((tasks, owned));
        assert!(dropped.await.is_err() && owned_dropped.await.is_err());
    }

    #[tokio::test]
    async fn a_panic_of_what_belongs_to_a_connection_ends_that_alone() {
        assert_eq!(logged("connection", async { 1 }).await, Some(1));
        assert_eq!(logged::<()>("connection", async { panic!("odd bytes") }).await, None);
    }

    fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// Tasks that nobody watches. The guard and the database have some of their own, whose ends they look at themselves.
    #[test]
    fn no_task_is_started_elsewhere() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&source, &mut files);
        let watched = |path: &&PathBuf| {
            let path = path.strip_prefix(&source).unwrap();
            !["database", "guard", "os", "tasks.rs"].iter().any(|own| path.starts_with(own))
        };
        let files: Vec<_> = files.iter().filter(watched).collect();
        assert!(files.len() > 50, "{files:?}");
        for path in files {
            let text = std::fs::read_to_string(path).unwrap();
            for start in ["tokio::spawn", "task::spawn(", "JoinSet", "spawn_local"] {
                assert!(!text.contains(start), "{} has `{start}`: start it by tasks.rs", path.display());
            }
        }
    }
}
