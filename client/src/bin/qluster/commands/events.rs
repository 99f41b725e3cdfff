//! The command `events`.

use futures::StreamExt;
use qluster_client::model::{Event, EventKind, LogIndex};

use crate::failure::{Failure, chain};
use crate::output::Format;
use crate::session::Session;

/// How many events are shown if no limit is given.
const DEFAULT_EVENTS: u32 = 100;
/// How many past events `--follow` shows first, if no limit is given.
const FOLLOW_EVENTS: u32 = 10;
/// How many events a node answers with at most.
const MAX_EVENTS: u32 = 1000;

pub(super) async fn run(
    session: &Session,
    follow: bool,
    limit: Option<u32>,
    after: Option<LogIndex>,
    kinds: &[EventKind],
) -> Result<(), Failure> {
    let wanted = |event: &Event| kinds.is_empty() || kinds.contains(&event.kind);
    let limit = limit.unwrap_or(if follow { FOLLOW_EVENTS } else { DEFAULT_EVENTS });
    // With `after`, a node answers with the oldest events first. It does not filter by kind. In both cases the newest
    // events are chosen here.
    let asked = if after.is_some() || !kinds.is_empty() { MAX_EVENTS } else { limit };
    let events = session.cluster.events(after, Some(asked)).await?;
    let newest = events.last().map(|event| event.index).or(after).unwrap_or_default();
    let mut events: Vec<Event> = events.into_iter().filter(wanted).collect();
    let surplus = events.len().saturating_sub(limit as usize);
    events.drain(..surplus);
    if !follow {
        return session.out.show(&events, |_| list(&events));
    }
    if session.out.format == Format::Table {
        session.out.text(&head())?;
    }
    for event in &events {
        session.out.item(event, |_| line(event))?;
    }
    show_new(session, newest, wanted).await
}

/// Prints new events until the user interrupts it.
async fn show_new(session: &Session, after: LogIndex, wanted: impl Fn(&Event) -> bool) -> Result<(), Failure> {
    let mut coming = session.cluster.watch_events(after);
    let mut quiet = false;
    let mut last = None;
    while let Some(event) = coming.next().await {
        match event {
            Ok(event) => {
                quiet = false;
                if wanted(&event) {
                    session.out.item(&event, |_| line(&event))?;
                }
            }
            Err(error) => {
                // Said once, not every second: it continues as soon as a node answers.
                if !quiet {
                    eprintln!("no node answers, still trying: {}", chain(&error));
                }
                quiet = true;
                last = Some(error);
            }
        }
    }
    // The stream ends only if another attempt would not help.
    last.map_or(Ok(()), |error| Err(error.into()))
}

fn list(events: &[Event]) -> String {
    match events {
        [] => "No events.".into(),
        _ => std::iter::once(head()).chain(events.iter().map(line)).collect::<Vec<_>>().join("\n"),
    }
}

fn head() -> String {
    columns("TIME", "TERM", "NODE", "WHAT", "WHY")
}

/// An event in a line. The widths of its columns are fixed, because later events are not known yet.
pub(super) fn line(event: &Event) -> String {
    let Event { time, term, kind, node, cause, actor, .. } = event;
    let node = node.map_or_else(|| "-".into(), |node| node.to_string());
    columns(time, &term.to_string(), &node, &kind.to_string(), &format!("{cause} (by {actor})"))
}

fn columns(time: &str, term: &str, node: &str, what: &str, why: &str) -> String {
    format!("{time:<24}  {term:>4}  {node:>4}  {what:<18}  {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_the_api_calls_upgraded_is_enrolled() {
        let json = serde_json::json!({"index": 1, "time": "2026-01-31T12:00:00.123Z", "term": 7,
            "kind": "node-upgraded", "node": 2, "cause": "why", "actor": "operator"});
        let event = serde_json::from_value(json).unwrap();
        assert_eq!(line(&event), "2026-01-31T12:00:00.123Z     7     2  node enrolled       why (by operator)");
    }
}
