//! Watching who says that it leads: each node is asked all the time.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::epochs::Claim;
use super::journal::Journal;
use crate::http;

/// Between two questions to a node.
const INTERVAL: Duration = Duration::from_millis(40);
/// Who has not said for so long that it leads is not gone to by clients.
const FRESH: Duration = Duration::from_millis(800);

/// The watchers, a thread a node. Dropped, they end.
pub(crate) struct Watch {
    claims: Arc<Mutex<Vec<Claim>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(nodes: &[SocketAddrV4], journal: &Arc<Journal>) -> Self {
        let (claims, stop) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(false)));
        let watch = |(node, &api): (usize, &SocketAddrV4)| {
            let (claims, stop, journal) = (Arc::clone(&claims), Arc::clone(&stop), Arc::clone(journal));
            std::thread::spawn(move || watch(node, api, &claims, &stop, &journal))
        };
        let threads = nodes.iter().enumerate().map(watch).collect();
        Self { claims, stop, threads }
    }

    /// What clients know of who leads.
    pub(crate) fn compass(&self) -> Compass {
        Compass(self.claims.clone())
    }

    /// All answers of nodes that said that they lead.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        lock(&self.claims).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Shows where the leader is.
#[derive(Clone)]
pub(crate) struct Compass(Arc<Mutex<Vec<Claim>>>);

impl Compass {
    /// Who said last, and lately, that it leads.
    pub(crate) fn leader(&self) -> Option<usize> {
        let last = lock(&self.0).last().copied()?;
        (last.at.elapsed() < FRESH).then_some(last.node)
    }
}

fn lock(claims: &Mutex<Vec<Claim>>) -> MutexGuard<'_, Vec<Claim>> {
    claims.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(node: usize, api: SocketAddrV4, claims: &Mutex<Vec<Claim>>, stop: &AtomicBool, journal: &Journal) {
    let mut told = String::new();
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let answer = http::get(api, "/is-leader");
        let at = Instant::now();
        let state = match answer {
            Ok(answer) if answer.status == 200 => match term(&answer.body) {
                Some(epoch) => {
                    lock(claims).push(Claim { node, epoch, sent, at });
                    format!("says that it leads in term {epoch}")
                }
                None => format!("says that it leads, without a term: {}", answer.body),
            },
            Ok(answer) => format!("answers /is-leader with {}", answer.status),
            Err(_) => "does not answer /is-leader".into(),
        };
        if state != told {
            journal.note(format!("node {} {state}", node + 1));
            told = state;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// The term in which a node says that it leads, where it does.
pub(crate) fn leads(api: SocketAddrV4) -> Option<u64> {
    let answer = http::get(api, "/is-leader").ok()?;
    (answer.status == 200).then(|| term(&answer.body))?
}

fn term(body: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(body).ok()?["term"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_term_is_read() {
        assert_eq!(term(r#"{"id": 1, "term": 7}"#), Some(7));
        assert_eq!(term("{}"), None);
        assert_eq!(term("oops"), None);
    }
}
