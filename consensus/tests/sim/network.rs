//! The simulated network: requests and answers on their way, links that are cut, slow or lossy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use qluster_consensus::env::clock::Clock;
use qluster_consensus::model::NodeId;
use qluster_consensus::raft::transport::{PeerRequest, PeerResponse, Transport, TransportError};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::oneshot;

use crate::world::{Shared, lock};

/// What a caller gets.
pub type Answer = Result<PeerResponse, TransportError>;

/// A request or an answer on its way.
pub struct Letter {
    pub from: NodeId,
    pub to: NodeId,
    pub ticket: u64,
    pub content: Content,
}

pub enum Content {
    Request(Box<PeerRequest>),
    Answer(Box<Answer>),
}

/// Who waits for an answer.
pub struct Waiting {
    pub answer: oneshot::Sender<Answer>,
    pub address: SocketAddr,
    /// The term and candidate, if it asks for a vote.
    pub vote: Option<(u64, NodeId)>,
}

/// How a direction of a link is.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    cut: bool,
    /// How many of a hundred get lost.
    loss: u32,
    /// What is added to the delay at most, in milliseconds.
    slow: u64,
}

#[derive(Default)]
pub struct Net {
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// When the newest request arrives, so that none overtakes another.
    newest: BTreeMap<(NodeId, NodeId), Duration>,
    flying: BTreeMap<(Duration, u64), Letter>,
    number: u64,
    waiting: BTreeMap<u64, Waiting>,
}

impl Net {
    /// Cuts, slows or makes lossy one direction.
    pub fn spoil(&mut self, from: NodeId, to: NodeId, fault: Spoilt) {
        let link = self.links.entry((from, to)).or_default();
        match fault {
            Spoilt::Cut => link.cut = true,
            Spoilt::Slow(slow) => link.slow = slow,
            Spoilt::Lossy(loss) => link.loss = loss,
        }
    }

    /// All links are well again.
    pub fn heal(&mut self) {
        self.links.clear();
    }

    /// Whether anything gets from one node to another.
    pub fn passes(&self, from: NodeId, to: NodeId) -> bool {
        from == to || !self.links.get(&(from, to)).is_some_and(|link| link.cut)
    }

    /// Whether a connection between two nodes can be used.
    pub fn connects(&self, one: NodeId, other: NodeId) -> bool {
        self.passes(one, other) && self.passes(other, one)
    }

    /// By how much what gets from one to the other is slowed, in milliseconds.
    pub fn slowed(&self, from: NodeId, to: NodeId) -> u64 {
        self.links.get(&(from, to)).map_or(0, |link| link.slow)
    }

    /// Sends a letter; requests from one node to another arrive in order, answers as they come.
    pub fn send(&mut self, now: Duration, random: &mut StdRng, letter: Letter) {
        let between = (letter.from, letter.to);
        let link = self.links.get(&between).copied().unwrap_or_default();
        if link.cut || (link.loss > 0 && random.random_range(0..100) < link.loss) {
            return;
        }
        let usual = if random.random_range(0..50) == 0 { 40 } else { 4 };
        let delay = random.random_range(0..=usual)
            + if link.slow > 0 { random.random_range(link.slow / 2..=link.slow) } else { 0 };
        let mut at = now + crate::world::WINDOW + Duration::from_millis(delay);
        if matches!(letter.content, Content::Request(_)) {
            let newest = self.newest.entry(between).or_default();
            at = at.max(*newest);
            *newest = at;
        }
        self.number += 1;
        self.flying.insert((at, self.number), letter);
    }

    /// The letters that have arrived by `now`. What was on its way over a link that is cut by now is lost.
    pub fn arrived(&mut self, now: Duration) -> Vec<Letter> {
        let later = self.flying.split_off(&(now + Duration::from_nanos(1), 0));
        let arrived = std::mem::replace(&mut self.flying, later);
        arrived.into_values().filter(|letter| self.passes(letter.from, letter.to)).collect()
    }

    /// Who waits for the answer with this ticket.
    pub fn take_waiting(&mut self, ticket: u64) -> Option<Waiting> {
        self.waiting.remove(&ticket)
    }

    /// The vote that was asked for with this ticket.
    pub fn vote_asked(&self, ticket: u64) -> Option<(u64, NodeId)> {
        self.waiting.get(&ticket)?.vote
    }

    pub fn address_asked(&self, ticket: u64) -> Option<SocketAddr> {
        Some(self.waiting.get(&ticket)?.address)
    }
}

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, Hash)]
pub enum Spoilt {
    Cut,
    Slow(u64),
    Lossy(u32),
}

/// A node's end of the network.
pub struct Line {
    pub me: NodeId,
    pub world: Shared,
    pub clock: Clock,
}

impl Transport for Line {
    fn call(
        &self,
        to: NodeId,
        address: SocketAddr,
        request: PeerRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Answer> {
        let (answer, answered) = oneshot::channel();
        let mut world = lock(&self.world);
        let world = &mut *world;
        world.net.number += 1;
        let ticket = world.net.number;
        let vote = match &request {
            PeerRequest::Vote(request) => Some((request.vote.term.0, request.vote.voted_for)),
            _ => None,
        };
        if let PeerRequest::Append(append) = &request {
            world.oracle.append(self.me, append);
        }
        world.net.waiting.insert(ticket, Waiting { answer, address, vote });
        let letter = Letter { from: self.me, to, ticket, content: Content::Request(Box::new(request)) };
        world.net.send(self.clock.now(), &mut world.random, letter);
        let late = TransportError::Timeout { node: to, address, timeout };
        let (shared, forget) = (Arc::downgrade(&self.world), ticket);
        async move {
            let answer = async {
                match answered.await {
                    Ok(answer) => answer,
                    // It was lost.
                    Err(_) => std::future::pending().await,
                }
            };
            tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
                if let Some(world) = shared.upgrade() {
                    lock(&world).net.waiting.remove(&forget);
                }
                Err(late)
            })
        }
        .boxed()
    }

    fn forget(&self, _: NodeId) {}
}

/// The name of a request, for people.
pub fn kind(request: &PeerRequest) -> &'static str {
    match request {
        PeerRequest::Append(append) if append.entries.is_empty() => "heartbeat",
        PeerRequest::Append(_) => "append",
        PeerRequest::Vote(_) => "vote",
        PeerRequest::PreVote { .. } => "pre-vote",
        PeerRequest::Transfer(_) => "transfer",
        PeerRequest::Snapshot(_) => "snapshot",
        PeerRequest::Recruit { .. } => "recruit",
        PeerRequest::Leave { .. } => "leave",
        PeerRequest::Down { .. } => "down",
        PeerRequest::Up => "up",
        PeerRequest::Force { .. } => "force",
        PeerRequest::Yield => "yield",
        PeerRequest::Report(_) => "report",
        PeerRequest::Look => "look",
    }
}

/// A split of the nodes in two.
pub fn split(nodes: &[NodeId], random: &mut StdRng) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
    nodes.iter().partition(|_| random.random_bool(0.5))
}
