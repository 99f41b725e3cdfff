//! Watching which node says that it leads: each is asked all the time.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::epochs::Claim;
use super::journal::Journal;
use crate::http;

/// The time between two requests to a node.
const INTERVAL: Duration = Duration::from_millis(40);
/// Clients do not go to a node that has not said for this long that it leads.
const FRESH: Duration = Duration::from_millis(800);

/// The watchers, one thread for each node. When this is dropped, they end.
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

    /// The view that clients have of the leader.
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

/// Points to the leader.
#[derive(Clone)]
pub(crate) struct Compass(Arc<Mutex<Vec<Claim>>>);

impl Compass {
    /// The node that was the last to say that it leads, if that was not long ago.
    pub(crate) fn leader(&self) -> Option<usize> {
        let last = lock(&self.0).last().copied()?;
        (last.at.elapsed() < FRESH).then_some(last.node)
    }
}

fn lock(claims: &Mutex<Vec<Claim>>) -> MutexGuard<'_, Vec<Claim>> {
    claims.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(node: usize, api: SocketAddrV4, claims: &Mutex<Vec<Claim>>, stop: &AtomicBool, journal: &Journal) {
    let mut last = String::new();
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
        if state != last {
            journal.note(format!("node {} {state}", node + 1));
            last = state;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// The term in which a node says that it leads. None if it does not.
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
