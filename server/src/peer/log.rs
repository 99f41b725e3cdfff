//! What became of the connections to other nodes, for people.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::SystemTime;

use qluster_consensus::model::NodeId;

use crate::os::lock::lock;

/// How many lines are kept, the newest ones.
const LINE_LIMIT: usize = 500;
/// Of how many connections the state is remembered. Strangers can make up connections, so there is a limit.
const SUBJECT_LIMIT: usize = 1000;

/// The newest 500 lines on the connections to other nodes.
///
/// Only changes are noted: a node that is down for a day is noted once, although it is dialed all day.
#[derive(Debug, Default)]
pub struct PeerLog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<(SystemTime, String)>,
    states: HashMap<Subject, State>,
}

/// Which connection a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// This node's to another.
    To(NodeId),
    /// The one of a host that says that it is this node.
    From(NodeId, IpAddr),
    /// The one of a host that did not say who it is.
    Stranger(IpAddr),
}

/// How a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connected,
    Lost,
    Unreachable,
    Refused(String),
    /// Secrets or certificates do not match, which somebody has to mend.
    Distrusted(String),
}

impl PeerLog {
    /// Notes a line with the current time.
    pub fn note(&self, text: String) {
        tracing::info!(target: "qluster::peer", "{text}");
        lock(&self.inner).keep(text);
    }

    /// The lines, oldest first, each with the time when it was noted.
    pub fn lines(&self) -> Vec<(SystemTime, String)> {
        lock(&self.inner).lines.iter().cloned().collect()
    }

    /// Notes the state of the connection `subject`, unless it is the same as before.
    pub(super) fn change(&self, subject: Subject, state: State, text: impl FnOnce() -> String) {
        let mut inner = lock(&self.inner);
        if inner.states.get(&subject) == Some(&state) {
            return;
        }
        if inner.states.len() >= SUBJECT_LIMIT {
            inner.states.clear();
        }
        // That a node comes or goes shows in its effects, and is no warning. A refusal, or distrust, is for somebody to mend.
        let to_mend = matches!(state, State::Refused(_) | State::Distrusted(_));
        inner.states.insert(subject, state);
        let text = text();
        match to_mend {
            true => tracing::warn!(target: "qluster::peer", "{text}"),
            false => tracing::info!(target: "qluster::peer", "{text}"),
        }
        inner.keep(text);
    }
}

impl Inner {
    fn keep(&mut self, text: String) {
        if self.lines.len() >= LINE_LIMIT {
            self.lines.pop_front();
        }
        self.lines.push_back((SystemTime::now(), text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(log: &PeerLog) -> Vec<String> {
        log.lines().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn the_newest_lines_are_kept() {
        let log = PeerLog::default();
        (0..LINE_LIMIT + 3).for_each(|line| log.note(line.to_string()));
        let expected: Vec<_> = (3..LINE_LIMIT + 3).map(|line| line.to_string()).collect();
        assert_eq!(texts(&log), expected);
    }

    #[test]
    fn only_changes_are_noted() {
        let log = PeerLog::default();
        let (two, three) = (Subject::To(NodeId(2)), Subject::To(NodeId(3)));
        for (subject, state, text) in [
            (two, State::Unreachable, "2 is down"),
            (two, State::Unreachable, "2 is still down"),
            (three, State::Unreachable, "3 is down"),
            (two, State::Connected, "2 is up"),
            (two, State::Refused("a".into()), "2 refuses for a"),
            (two, State::Refused("a".into()), "2 refuses for a again"),
            (two, State::Refused("b".into()), "2 refuses for b"),
        ] {
            log.change(subject, state, || text.into());
        }
        assert_eq!(texts(&log), ["2 is down", "3 is down", "2 is up", "2 refuses for a", "2 refuses for b"]);
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let log = PeerLog::default();
        for host in 0..3 * SUBJECT_LIMIT as u32 {
            let host = IpAddr::from(host.to_be_bytes());
            log.change(Subject::Stranger(host), State::Refused(String::new()), String::new);
        }
        assert!(lock(&log.inner).states.len() <= SUBJECT_LIMIT);
    }
}
