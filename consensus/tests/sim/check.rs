//! What must hold at every step, and what was seen that it is held against.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use futures::FutureExt;
use openraft::storage::RaftLogReader;
use qluster_consensus::model::{NodeId, NodeRole, Term};
use qluster_consensus::node::cluster::Cluster;
use qluster_consensus::node::inside::Inside;
use qluster_consensus::protocol::command::Change;
use qluster_consensus::raft::store::Store;
use qluster_consensus::raft::wire::{AppendRequest, LogEntry, LogPayload};

use crate::database::Db;

/// What must hold. The names are those of PROTOCOL.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    OneLeaderATerm,
    OneVoteATerm,
    OnlyMembersVote,
    TermsRise,
    LogsMatch,
    CommittedStays,
    StatesAgree,
    OneLeaderAtATime,
    LeasesEnd,
    IdsAreNew,
    SettingsAreLinearizable,
    PromotedUnderALead,
    PromotedIsWhole,
    AcknowledgedStays,
    FollowersArePrefixes,
    OnePrimaryServes,
    StoresOpen,
    NothingPanics,
    LeaderInTheEnd,
    AllCaughtUpInTheEnd,
    AllFollowInTheEnd,
    CommitsInTheEnd,
}

/// What was broken, and how.
#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: Invariant,
    pub how: String,
}

impl Violation {
    pub fn new(invariant: Invariant, how: impl Into<String>) -> Self {
        Self { invariant, how: how.into() }
    }
}

pub type Checked = Result<(), Violation>;

fn broken(invariant: Invariant, how: impl Into<String>) -> Checked {
    Err(Violation::new(invariant, how))
}

/// What was seen, and can never be otherwise any more.
#[derive(Default)]
pub struct Oracle {
    leaders: BTreeMap<u64, NodeId>,
    votes: BTreeMap<(NodeId, u64), NodeId>,
    terms: BTreeMap<NodeId, (u64, bool)>,
    /// By index and term: what the entry is, and the term of the one before it.
    entries: BTreeMap<(u64, u64), (u64, Option<u64>)>,
    /// By index, what was applied: its term and what it is.
    committed: BTreeMap<u64, (u64, u64)>,
    states: BTreeMap<u64, u64>,
    applied: BTreeMap<NodeId, u64>,
    /// The leads that were applied anywhere, by term.
    pub leads: BTreeMap<u64, NodeId>,
    /// Records of the databases that a client knows, by id: where they end, and the first term whose primary told them.
    pub known: BTreeMap<u64, (usize, Term)>,
    /// Of them, how many were acknowledged to who wrote them.
    pub acknowledged: u64,
    ids: BTreeSet<NodeId>,
    /// Who was a voter in any log.
    voters: BTreeSet<NodeId>,
    /// What was seen where it cannot be reported at once.
    pub found: Option<Violation>,
}

impl Oracle {
    /// A node sends an append.
    pub fn append(&mut self, from: NodeId, append: &AppendRequest) {
        let term = append.vote.term.0;
        let leader = append.vote.voted_for;
        let known = *self.leaders.entry(term).or_insert(leader);
        if known != leader || from != leader {
            self.find(
                Invariant::OneLeaderATerm,
                format!("node {from} sends appends of the leader {leader} of term {term}, which is {known}"),
            );
        }
    }

    fn find(&mut self, invariant: Invariant, how: String) {
        self.found.get_or_insert(Violation::new(invariant, how));
    }

    /// A node grants a vote.
    pub fn vote(&mut self, voter: NodeId, asked: (u64, NodeId), cluster: &Cluster) {
        let (term, candidate) = asked;
        let given = *self.votes.entry((voter, term)).or_insert(candidate);
        if given != candidate {
            self.find(
                Invariant::OneVoteATerm,
                format!("node {voter} votes for node {candidate} in term {term}, and has voted for node {given}"),
            );
        }
        let role = cluster.state(|state| state.nodes.get(&voter).map(|node| node.role));
        // One may have become a voter before it learns of it.
        if role == Some(NodeRole::Listener) && !self.voters.contains(&voter) {
            self.find(
                Invariant::OnlyMembersVote,
                format!("node {voter}, which is a listener, votes for node {candidate} in term {term}"),
            );
        }
    }

    /// A node that knew that it was removed grants a vote, or a pre-vote.
    pub fn removed_votes(&mut self, voter: NodeId, candidate: NodeId) {
        self.find(
            Invariant::OnlyMembersVote,
            format!("node {voter} knows that it was removed, and votes for node {candidate}"),
        );
    }

    /// An id was given to a new node.
    pub fn new_id(&mut self, id: NodeId) -> Checked {
        match self.ids.insert(id) {
            true => Ok(()),
            false => broken(Invariant::IdsAreNew, format!("the id {id} is given a second time")),
        }
    }

    /// A look at a node.
    pub fn look(&mut self, id: NodeId, now: Duration, cluster: &Cluster, store: &Store, inside: &Inside) -> Checked {
        let term = inside.vote.term.0;
        let leads = inside.leads;
        self.voters.extend(inside.voters.iter().flatten());
        let before = self.terms.insert(id, (term, leads));
        if before.is_some_and(|(before, _)| before > term) {
            return broken(Invariant::TermsRise, format!("node {id} is in term {term}, and was in {before:?}"));
        }
        if leads {
            let known = *self.leaders.entry(term).or_insert(id);
            if known != id {
                return broken(Invariant::OneLeaderATerm, format!("nodes {known} and {id} lead term {term}"));
            }
            if before != Some((term, true)) {
                self.leader_is_complete(id, term, store)?;
            }
        }
        self.lease(id, term, now, cluster, inside)?;
        self.apply(id, cluster, store)
    }

    /// No lease reaches further than it was promised for.
    fn lease(&self, id: NodeId, term: u64, now: Duration, cluster: &Cluster, inside: &Inside) -> Checked {
        let Some(end) = inside.lease_end else { return Ok(()) };
        let timeout = cluster.state(|state| state.config.node_timeout.get());
        if end > now + timeout {
            return broken(
                Invariant::LeasesEnd,
                format!("the lease of node {id} in term {term} lasts until {end:?}, longer than {timeout:?}"),
            );
        }
        Ok(())
    }

    fn leader_is_complete(&self, id: NodeId, term: u64, store: &Store) -> Checked {
        let Some((&index, &(of, what))) = self.committed.last_key_value() else { return Ok(()) };
        // The term of this leader is over by now, so it may lack what was committed in a later one.
        if of > term {
            return Ok(());
        }
        if let Some(entry) = read(store, index, index + 1).first() {
            return match entry_of(entry).1 == (of, what) {
                true => Ok(()),
                false => broken(
                    Invariant::CommittedStays,
                    format!("node {id}, the leader of term {term}, has another entry {index} than the committed one"),
                ),
            };
        }
        // It may be in its snapshot.
        match self.applied.get(&id).is_some_and(|&applied| applied >= index) {
            true => Ok(()),
            false => broken(
                Invariant::CommittedStays,
                format!("node {id}, the leader of term {term}, lacks the committed entry {index} of term {of}"),
            ),
        }
    }

    /// What a node has applied since the last look.
    fn apply(&mut self, id: NodeId, cluster: &Cluster, store: &Store) -> Checked {
        let inside = cluster.inside();
        let Some(last) = inside.applied else { return Ok(()) };
        let before = self.applied.get(&id).copied();
        if before == Some(last.index) {
            return Ok(());
        }
        self.applied.insert(id, last.index);
        let from = before.map_or(0, |before| before + 1).min(last.index);
        for entry in read(store, from, last.index + 1) {
            let (index, (term, what)) = entry_of(&entry);
            if let LogPayload::Command(command) = &entry.payload
                && let Change::Lead { node, term, .. } = &command.change
            {
                self.leads.insert(term.0, *node);
            }
            let known = *self.committed.entry(index).or_insert((term, what));
            if known != (term, what) {
                return broken(
                    Invariant::CommittedStays,
                    format!(
                        "node {id} has applied an entry {index} of term {term}, and another node one of {}",
                        known.0
                    ),
                );
            }
        }
        let state = cluster.state(|state| hash(&postcard::to_stdvec(state).unwrap()));
        let known = *self.states.entry(last.index).or_insert(state);
        if known != state {
            return broken(Invariant::StatesAgree, format!("node {id} has another state at index {}", last.index));
        }
        Ok(())
    }

    /// The log of a node, all of it, against those of the others.
    pub fn log(&mut self, id: NodeId, store: &Store) -> Checked {
        let mut before = None;
        for entry in read(store, 0, u64::MAX) {
            let (index, (term, what)) = entry_of(&entry);
            let known = *self.entries.entry((index, term)).or_insert((what, before));
            if known.0 != what || (known.1.is_some() && before.is_some() && known.1 != before) {
                return broken(
                    Invariant::LogsMatch,
                    format!("node {id} has another entry {index} of term {term}, or before it, than another node"),
                );
            }
            before = Some(term);
        }
        Ok(())
    }

    /// A node restarts: what it had applied is read again.
    pub fn restarts(&mut self, id: NodeId) {
        self.applied.remove(&id);
        if let Some((_, leads)) = self.terms.get_mut(&id) {
            *leads = false;
        }
    }

    /// A database was promoted.
    pub fn promoted(&self, db: &Db) -> Checked {
        let term = db.rule.term;
        if self.leads.get(&term.0) != Some(&db.id) {
            return broken(
                Invariant::PromotedUnderALead,
                format!("the database of node {} is promoted in term {term}, without its `Lead`", db.id),
            );
        }
        if db.torn.is_some() {
            return broken(
                Invariant::PromotedIsWhole,
                format!("the database of node {} is promoted, and was being rebuilt", db.id),
            );
        }
        self.has_all(db)
    }

    /// A client hears of a record from the primary of `term`.
    pub fn tell(&mut self, record: u64, end: usize, term: Term) {
        let known = self.known.entry(record).or_insert((end, term));
        *known = (end, term.min(known.1));
    }

    /// Whether a primary has what clients know. What a later one told it need not have: an agent that was paused may
    /// promote its database when another has been promoted long since.
    pub fn has_all(&self, db: &Db) -> Checked {
        for (&record, &(end, told_in)) in &self.known {
            if told_in <= db.rule.term && db.wal.get(end - 1).is_none_or(|there| there.id != record) {
                return broken(
                    Invariant::AcknowledgedStays,
                    format!(
                        "the primary of node {}, of term {}, lacks record {record} at {end}, which a client was told of",
                        db.id, db.rule.term
                    ),
                );
            }
        }
        Ok(())
    }
}

fn read(store: &Store, from: u64, to: u64) -> Vec<LogEntry> {
    let entries = store.clone().try_get_log_entries(from..to).now_or_never().and_then(Result::ok);
    entries.unwrap_or_default().into_iter().map(LogEntry::from).collect()
}

/// Its index, its term and what it is.
fn entry_of(entry: &LogEntry) -> (u64, (u64, u64)) {
    let term = entry.position.term.0;
    (entry.position.index, (term, hash(&postcard::to_stdvec(&entry.payload).unwrap())))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
