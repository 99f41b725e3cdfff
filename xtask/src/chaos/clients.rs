//! The clients: writers that follow the leader, stubborn writers that stay where they are, and readers.
//!
//! No wait for a commit is ever cancelled: a primary that is made to stop waiting commits without its standbys.

use std::net::{SocketAddrV4, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ledger::{Ack, Ledger, TABLE};
use super::watch::Compass;
use crate::postgres::Session;

/// How many writers follow the leader, and how many do so only when their connection breaks.
const WRITERS: usize = 4;
const STUBBORN: usize = 2;
/// The number of all writers.
pub(crate) const WRITING: usize = WRITERS + STUBBORN;

/// The time between two rows of a client. The load is there to notice faults, not to keep the machine busy.
const PAUSE: Duration = Duration::from_millis(10);
const STUBBORN_PAUSE: Duration = Duration::from_millis(4);
/// The time between two reads at a node, and between two attempts to connect to it.
const READ_PAUSE: Duration = Duration::from_millis(200);
/// How long a client waits for its answer before it checks anything else.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// A writer that has waited this long leaves if another node leads. The answer still counts when it comes.
const WRITER_TIMEOUT: Duration = Duration::from_secs(2);
/// How many of the newest rows readers read. Rows that a primary has not replicated yet are among them.
const NEWEST: i64 = 300;

/// All clients. When this is dropped, they end, and answers that they still wait for are lost.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What a client knows.
#[derive(Clone)]
struct Client {
    bin_dir: PathBuf,
    databases: Arc<Vec<SocketAddrV4>>,
    compass: Compass,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
}

impl Clients {
    pub(crate) fn start(
        bin_dir: PathBuf,
        databases: Vec<SocketAddrV4>,
        compass: Compass,
        ledger: &Arc<Ledger>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = databases.len();
        let client =
            Client { bin_dir, databases: Arc::new(databases), compass, ledger: ledger.clone(), stop: stop.clone() };
        let writers = (0..WRITING).map(|number| {
            let client = client.clone();
            std::thread::spawn(move || client.write(number, number >= WRITERS))
        });
        let readers = (0..count).map(|node| {
            let client = client.clone();
            std::thread::spawn(move || client.read(node))
        });
        let threads = writers.chain(readers).collect();
        Self { stop, threads }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Client {
    fn is_done(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Writes row after row through the leader. A stubborn client writes through the node that led when it connected.
    /// After an error it is unknown whether the row was written, so the next row has another number.
    fn write(&self, number: usize, stubborn: bool) {
        // Threads that wait for an answer from a node that this client has left.
        let mut waiting: Vec<JoinHandle<()>> = Vec::new();
        let mut open: Option<(usize, Session)> = None;
        while !self.is_done() {
            waiting.retain(|thread| !thread.is_finished());
            // A deposed node that does not know it still answers. Some clients leave it and others stay. What both
            // learn must agree.
            let stays = |(node, _): &(usize, Session)| stubborn || self.compass.leader().is_none_or(|it| it == *node);
            let Some((node, mut session)) = open.take().filter(stays).or_else(|| self.connect()) else {
                std::thread::sleep(CHECK_INTERVAL / 2);
                continue;
            };
            let row = self.ledger.next();
            // The timeline is that of the primary all the time: it never changes under a session that writes.
            let insert = format!("INSERT INTO {TABLE} VALUES ({row}) RETURNING pg_walfile_name(pg_current_wal_lsn())");
            let sent = Instant::now();
            if session.send(&insert).is_err() {
                continue;
            }
            let statement = Statement { row, client: number, node, sent };
            let other_leads = || self.compass.leader().is_some_and(|leader| leader != node);
            let leaves = || !stubborn && sent.elapsed() > WRITER_TIMEOUT && other_leads();
            match self.wait(&mut session, &statement, leaves) {
                Outcome::Acknowledged => open = Some((node, session)),
                Outcome::Unknown => {}
                Outcome::Left => {
                    let client = self.clone();
                    waiting.push(std::thread::spawn(move || {
                        client.wait(&mut session, &statement, || false);
                    }));
                }
            }
            std::thread::sleep(if stubborn { STUBBORN_PAUSE } else { PAUSE });
        }
        for thread in waiting {
            let _ = thread.join();
        }
    }

    /// Waits for the outcome of a row, until the connection breaks, `leaves` returns true, or the run ends.
    fn wait(&self, session: &mut Session, statement: &Statement, leaves: impl Fn() -> bool) -> Outcome {
        loop {
            match session.answer(CHECK_INTERVAL) {
                Ok(Some(rows)) => match timeline(&rows.concat()) {
                    Some(timeline) => {
                        self.ledger.acknowledged(statement.ack(timeline));
                        return Outcome::Acknowledged;
                    }
                    None => return Outcome::Unknown,
                },
                Err(_) => return Outcome::Unknown,
                Ok(None) if self.is_done() => return Outcome::Unknown,
                Ok(None) if leaves() => return Outcome::Left,
                Ok(None) => {}
            }
        }
    }

    fn connect(&self) -> Option<(usize, Session)> {
        let node = self.compass.leader()?;
        Some((node, self.open(node)?))
    }

    /// A session with a node. A plain connection is tried first, because a `psql` that fails costs more.
    fn open(&self, node: usize) -> Option<Session> {
        TcpStream::connect_timeout(&self.databases[node].into(), READ_PAUSE).ok()?;
        Session::open(&self.bin_dir, self.databases[node]).ok()
    }

    /// Reads at one node, as long as it is a primary.
    fn read(&self, node: usize) {
        let mut open = None;
        while !self.is_done() {
            std::thread::sleep(READ_PAUSE);
            let Some(mut session) = open.take().or_else(|| self.open(node)) else { continue };
            let after = self.ledger.newest() - NEWEST;
            // If commits wait for a name that no node has, the node was promoted by hand.
            let select = format!(
                "SELECT row FROM {TABLE} WHERE row > {after} AND NOT pg_is_in_recovery()
                    AND current_setting('synchronous_standby_names') <> 'qluster_nobody'"
            );
            if session.send(&select).is_err() {
                continue;
            }
            open = loop {
                match session.answer(CHECK_INTERVAL) {
                    Ok(Some(rows)) => {
                        self.ledger.shown(rows.iter().filter_map(|row| row.parse().ok()), node);
                        break Some(session);
                    }
                    Ok(None) if !self.is_done() => {}
                    _ => break None,
                }
            };
        }
    }
}

/// An insert that was sent.
struct Statement {
    row: i64,
    client: usize,
    node: usize,
    sent: Instant,
}

impl Statement {
    fn ack(&self, timeline: u64) -> Ack {
        let Self { row, client, node, sent } = *self;
        Ack { row, client, node, timeline, sent, at: Instant::now() }
    }
}

enum Outcome {
    Acknowledged,
    Unknown,
    Left,
}

/// The timeline in the name of a WAL file: its first eight hexadecimal digits.
fn timeline(file: &str) -> Option<u64> {
    u64::from_str_radix(file.get(..8)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeline_is_read_from_the_name_of_a_file() {
        assert_eq!(timeline("0000001A0000000000000003"), Some(26));
        assert_eq!(timeline(""), None);
        assert_eq!(timeline("not a file name"), None);
    }
}
