//! What people read: errors with their causes, and events as text.

use std::time::SystemTime;

use qluster_consensus::model::Event;

/// An error with all its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        // Some errors repeat their cause.
        if !text.ends_with(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
}

/// Events of the cluster and of the peers, a line each, newest last.
pub fn text(events: &[Event], peers: &[(SystemTime, String)]) -> String {
    let of_cluster = events.iter().map(|event| {
        let node = event.node.map(|node| format!(" node {node}")).unwrap_or_default();
        let Event { time, term, kind, cause, actor, .. } = event;
        (time.clone(), format!("{time} term {term} {kind}{node}: {cause} (by {actor})\n"))
    });
    let of_peers = peers.iter().map(|(time, line)| {
        let time = humantime::format_rfc3339_millis(*time).to_string();
        (time.clone(), format!("{time} {line}\n"))
    });
    let mut lines: Vec<_> = of_cluster.chain(of_peers).collect();
    // RFC 3339 in UTC sorts as text; lines of one instant keep their order.
    lines.sort_by(|(one, _), (other, _)| one.cmp(other));
    lines.into_iter().map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use qluster_consensus::model::{EventKind, LogIndex, NodeId, Term};

    use super::*;

    #[test]
    fn events_and_lines_of_peers_are_in_the_order_of_time() {
        let event = Event {
            index: LogIndex(4),
            time: "1970-01-01T00:00:02.000Z".into(),
            term: Term(3),
            kind: EventKind::LeaderElected,
            node: Some(NodeId(2)),
            cause: "elected in term 3".into(),
            actor: "node 2".into(),
        };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let peers = [(at(1), "node 1 connected".to_owned()), (at(3), "node 1 went away".to_owned())];
        assert_eq!(
            text(&[event], &peers),
            "1970-01-01T00:00:01.000Z node 1 connected\n\
             1970-01-01T00:00:02.000Z term 3 leader elected node 2: elected in term 3 (by node 2)\n\
             1970-01-01T00:00:03.000Z node 1 went away\n"
        );
    }
}
