//! The only writer. It takes the writes in order, and puts all that are waiting into one transaction.
//!
//! It runs on a thread of its own, since an fsync would block a worker of the runtime. For simulations, it runs on the
//! caller's thread, at once or after a delay. The thread ends when the last [`Store`](super::Store) is dropped and everything
//! is written.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::disk::{Change, Disk};
use super::{Log, StoreError};
use crate::env::lock::lock;
use crate::env::observers::TimeObserver;

/// How many writes share a transaction at most, so that the newest does not wait for too many.
const WRITES_PER_TRANSACTION: usize = 256;
/// A write that takes longer than this causes a warning.
const SLOW_WRITE: Duration = Duration::from_secs(1);

/// Who is notified when a write is durable, or has failed.
pub(super) enum Done {
    Nobody,
    Flushed(Flushed),
    Waiting(Reply),
    Blocked(mpsc::Sender<Result<(), StoreError>>),
}

/// Is called once with the outcome of a write.
pub(super) type Flushed = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

type Reply = oneshot::Sender<Result<(), StoreError>>;

/// A write that was asked for.
struct Write {
    number: u64,
    change: Change,
    done: Done,
}

/// What readers and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    disk: Disk,
    /// It is locked while a write is queued, too, so that what readers see changes in the order of the queue.
    pub(super) log: Mutex<Log>,
    pub(super) timing: Timing,
    /// The first failure. After it, nothing is read or written.
    failed: OnceLock<String>,
}

/// How long commits take, in nanoseconds; and the hook that is called with it.
#[derive(Debug, Default)]
pub(super) struct Timing {
    last: AtomicU64,
    slowest: AtomicU64,
    observer: TimeObserver,
}

/// What the users of the store have of the writer.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    queue: Queue,
    number: AtomicU64,
}

enum Queue {
    Thread { sender: Option<mpsc::Sender<Write>>, thread: Option<JoinHandle<()>> },
    InLine(Arc<Line>),
}

/// The writes that wait, if there is no thread.
struct Line {
    shared: Arc<Shared>,
    waiting: Mutex<Vec<Write>>,
    turn: Mutex<()>,
    delay: Option<Delay>,
}

/// Returns how long the next write takes.
pub(super) type Delay = Box<dyn Fn() -> Duration + Send + Sync>;

/// Who writes.
pub(super) enum By {
    Thread,
    Caller(Option<Delay>),
}

impl Writer {
    pub(super) fn new(disk: Disk, log: Log, by: By) -> Result<Self, StoreError> {
        let shared =
            Arc::new(Shared { disk, log: Mutex::new(log), timing: Timing::default(), failed: OnceLock::new() });
        let queue = match by {
            By::Thread => {
                let (sender, receiver) = mpsc::channel();
                let thread = std::thread::Builder::new().name("qluster-store".into()).spawn({
                    let shared = shared.clone();
                    move || run(&shared, &receiver)
                });
                let thread = thread.map_err(StoreError::database("start the writer of"))?;
                Queue::Thread { sender: Some(sender), thread: Some(thread) }
            }
            By::Caller(delay) => {
                let (shared, waiting, turn) = (shared.clone(), Mutex::default(), Mutex::default());
                Queue::InLine(Arc::new(Line { shared, waiting, turn, delay }))
            }
        };
        Ok(Self { shared, queue, number: AtomicU64::new(0) })
    }

    /// The file, for reading. Fails once a write has failed.
    pub(super) fn disk(&self) -> Result<&Disk, StoreError> {
        self.check()?;
        Ok(&self.shared.disk)
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.shared.check()
    }

    /// Queues a change and returns its number. The caller holds the lock of the log, releases it, and then calls
    /// [`Writer::in_line`].
    pub(super) fn enqueue(&self, change: Change, done: Done) -> Result<u64, StoreError> {
        self.check()?;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let write = Write { number, change, done };
        match &self.queue {
            Queue::Thread { sender, .. } => {
                let sent = sender.as_ref().is_some_and(|sender| sender.send(write).is_ok());
                if !sent {
                    return Err(self.shared.fail("its writer has ended".into()));
                }
            }
            Queue::InLine(line) => lock(&line.waiting).push(write),
        }
        Ok(number)
    }

    /// Like [`Writer::enqueue`], for a caller who waits with [`Writer::written`].
    pub(super) fn send(&self, change: Change) -> Result<oneshot::Receiver<Result<(), StoreError>>, StoreError> {
        let (reply, receiver) = oneshot::channel();
        self.enqueue(change, Done::Waiting(reply))?;
        Ok(receiver)
    }

    /// Waits until the change is durable.
    pub(super) async fn written(&self, reply: oneshot::Receiver<Result<(), StoreError>>) -> Result<(), StoreError> {
        self.in_line();
        match reply.await {
            Ok(result) => result,
            Err(_) => Err(self.shared.fail("its writer has ended".into())),
        }
    }

    /// Like [`Writer::written`], for a caller who queued with [`Done::Blocked`]. It blocks the thread. If that is a worker of
    /// a runtime, its other tasks move to another worker first.
    pub(super) fn block(&self, reply: &mpsc::Receiver<Result<(), StoreError>>) -> Result<(), StoreError> {
        if let Queue::InLine(line) = &self.queue {
            line.write();
        }
        let result = match (reply.try_recv(), Handle::try_current().map(|runtime| runtime.runtime_flavor())) {
            (Ok(result), _) => Ok(result),
            (Err(_), Ok(RuntimeFlavor::MultiThread)) => tokio::task::block_in_place(|| reply.recv()),
            (Err(_), _) => reply.recv(),
        };
        result.unwrap_or_else(|_| Err(self.shared.fail("its writer has ended".into())))
    }

    /// If there is no thread: writes what is waiting, at once, or after the delay in a task.
    pub(super) fn in_line(&self) {
        let Queue::InLine(line) = &self.queue else { return };
        match &line.delay {
            None => line.write(),
            Some(delay) => {
                let (line, delay) = (line.clone(), delay());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    line.write();
                });
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        match &mut self.queue {
            Queue::Thread { sender, thread } => {
                sender.take();
                // When this returns, another process may open the file. The thread has logged a panic itself.
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
            Queue::InLine(line) => {
                let batch = std::mem::take(&mut *lock(&line.waiting));
                self.shared.commit(batch);
            }
        }
    }
}

impl Line {
    fn write(&self) {
        let _turn = lock(&self.turn);
        let batch = {
            let mut waiting = lock(&self.waiting);
            if !waiting.iter().any(Write::is_urgent) {
                return;
            }
            std::mem::take(&mut *waiting)
        };
        self.shared.commit(batch);
    }
}

fn run(shared: &Shared, queue: &mpsc::Receiver<Write>) {
    let mut batch = Vec::new();
    while let Ok(write) = queue.recv() {
        batch.push(write);
        while batch.len() < WRITES_PER_TRANSACTION
            && let Ok(write) = queue.try_recv()
        {
            batch.push(write);
        }
        if batch.len() >= WRITES_PER_TRANSACTION || batch.iter().any(Write::is_urgent) {
            shared.commit(std::mem::take(&mut batch));
        }
    }
    shared.commit(batch);
}

impl Shared {
    fn check(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(cause) => Err(StoreError::Failed { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Closes the store. The first cause is kept.
    fn fail(&self, cause: String) -> StoreError {
        let cause = self.failed.get_or_init(|| {
            tracing::error!(cause, "the store failed and is closed until the node is restarted");
            cause
        });
        StoreError::Failed { cause: cause.clone() }
    }

    /// Writes `batch` in one transaction, shows readers what is durable now, and notifies those who wait.
    fn commit(&self, batch: Vec<Write>) {
        let (mut changes, mut done, mut newest) = (Vec::new(), Vec::new(), None);
        for write in batch {
            newest = Some(write.number);
            changes.push(write.change);
            done.push(write.done);
        }
        let result = self.check().and_then(|()| self.write(&changes));
        if result.is_ok() {
            let mut log = lock(&self.log);
            log.tail.retain(|_, (number, _)| newest.is_none_or(|newest| *number > newest));
            for change in &changes {
                if let Change::Vote(vote, _) = change {
                    log.vote = Some(*vote);
                }
            }
        }
        for done in done {
            let result = if result.is_ok() { Ok(()) } else { self.check() };
            match done {
                Done::Nobody => {}
                Done::Flushed(flushed) => flushed(result),
                // The receiver may be gone.
                Done::Waiting(reply) => drop(reply.send(result)),
                Done::Blocked(reply) => drop(reply.send(result)),
            }
        }
    }

    fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.iter().all(|change| matches!(change, Change::Nothing)) {
            return Ok(());
        }
        let start = Instant::now();
        let written = catch_unwind(AssertUnwindSafe(|| self.disk.write(changes)));
        self.timing.record(start.elapsed());
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.fail(with_causes(&error))),
            Err(_) => Err(self.fail("a panic while writing".into())),
        }
    }
}

impl Write {
    fn is_urgent(&self) -> bool {
        !self.change.can_wait()
    }
}

impl Timing {
    pub(super) fn last(&self) -> Duration {
        Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }

    pub(super) fn slowest(&self) -> Duration {
        Duration::from_nanos(self.slowest.load(Ordering::Relaxed))
    }

    pub(super) fn observe(&self, hook: impl Fn(Duration) + Send + Sync + 'static) {
        self.observer.set(Box::new(hook));
    }

    fn record(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.last.store(nanoseconds, Ordering::Relaxed);
        self.slowest.fetch_max(nanoseconds, Ordering::Relaxed);
        self.observer.took(took);
        if took > SLOW_WRITE {
            tracing::warn!(?took, "a write to the store was slow: the disk is overloaded or failing");
        }
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Queue::Thread { .. } => "Thread",
            Queue::InLine(_) => "InLine",
        })
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
