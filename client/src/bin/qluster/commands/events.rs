//! What happened.

use futures::StreamExt;
use qluster_client::model::{Event, EventKind, LogIndex};

use crate::failure::{Failure, chain};
use crate::output::Format;
use crate::session::Session;

/// So many are shown where it is not said how many.
const SHOWN: u32 = 100;
/// The same before those that follow.
const BEFORE: u32 = 10;
/// So many a node tells at most.
const ALL: u32 = 1000;

pub(super) async fn run(
    session: &Session,
    follow: bool,
    limit: Option<u32>,
    after: Option<LogIndex>,
    kinds: &[EventKind],
) -> Result<(), Failure> {
    let wanted = |event: &Event| kinds.is_empty() || kinds.contains(&event.kind);
    let limit = limit.unwrap_or(if follow { BEFORE } else { SHOWN });
    // With `after` a node tells the oldest; of those of some kinds it cannot know how many there are.
    let asked = if after.is_some() || !kinds.is_empty() { ALL } else { limit };
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
    go_on(session, newest, wanted).await
}

/// Tells what happens, until interrupted.
async fn go_on(session: &Session, after: LogIndex, wanted: impl Fn(&Event) -> bool) -> Result<(), Failure> {
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
                // Once, not every second: it goes on as soon as a node answers.
                if !quiet {
                    eprintln!("no node answers, trying on: {}", chain(&error));
                }
                quiet = true;
                last = Some(error);
            }
        }
    }
    // It ends only where trying on does not help.
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

/// An event in a line; its columns are as wide as those of any other, which may not be known yet.
pub(super) fn line(event: &Event) -> String {
    let Event { time, term, kind, node, cause, actor, .. } = event;
    let node = node.map_or_else(|| "-".into(), |node| node.to_string());
    columns(time, &term.to_string(), &node, &kind.to_string(), &format!("{cause} (by {actor})"))
}

fn columns(time: &str, term: &str, node: &str, what: &str, why: &str) -> String {
    format!("{time:<24}  {term:>4}  {node:>4}  {what:<18}  {why}")
}
