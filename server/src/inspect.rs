//! `qluster-server inspect`: prints what the store of a node that does not run holds, and changes nothing.

use std::fmt::{Display, Write};
use std::path::Path;

use qluster_consensus::protocol::command::Command;
use qluster_consensus::raft::store::inspect::{Contents, Entry, InspectError, StoredEntry, Value};
use qluster_consensus::raft::store::{DatabaseRecord, Identity};
use qluster_consensus::raft::wire::{LogPayload, LogPosition, Membership, SnapshotMetadata, VoteRecord};
use serde::Serialize;

use crate::start::settings::STORE_FILE;

/// Why nothing is printed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon runs.
    #[error(
        "the node is running, and only its daemon may read its store. Ask it: `qluster info`, or `GET /info`. Or stop it \
         first (`systemctl stop qluster`, or SIGTERM)"
    )]
    Running,
    /// There is nothing to read.
    #[error("nothing was read")]
    Store(#[from] InspectError),
    /// What was read makes no JSON.
    #[error("what was read cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// How the contents are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line for each value and each entry of the log.
    Text,
    /// One JSON object.
    Json,
}

/// Prints what the store in the data directory `dir` holds. Returns whether all of it was read.
///
/// # Errors
///
/// If the node runs, or nothing can be read.
pub fn run(dir: &Path, format: Format, print: impl FnOnce(&str)) -> Result<bool, Error> {
    let path = dir.join(STORE_FILE);
    let contents = Contents::read(&path).map_err(|error| match error {
        InspectError::InUse(_) => Error::Running,
        error => Error::Store(error),
    })?;
    print(&match format {
        Format::Text => text(&path, &contents)?,
        Format::Json => serde_json::to_string_pretty(&contents)? + "\n",
    });
    Ok(contents.is_whole())
}

/// The contents for people.
fn text(path: &Path, contents: &Contents) -> Result<String, serde_json::Error> {
    let mut text = format!("store {}, {} bytes\n", path.display(), contents.bytes);
    for problem in &contents.problems {
        line(&mut text, "problem", problem);
    }
    line(&mut text, "format", shown(&contents.format, "unknown", ToString::to_string));
    line(&mut text, "identity", shown(&contents.identity, "none: it is part of no cluster yet", identity));
    let yes_or_no = |removed: &bool| if *removed { "yes" } else { "no" }.to_owned();
    line(&mut text, "removed from the cluster", shown(&contents.removed, "no", yes_or_no));
    line(&mut text, "vote", shown(&contents.vote, "none", vote));
    let grant = |length: &std::time::Duration| format!("{length:?}");
    let usual = "not above the default of node-timeout";
    line(&mut text, "longest lease granted", shown(&contents.longest_grant, usual, grant));
    line(&mut text, "record of the database", shown(&contents.database_record, "none", record));
    line(&mut text, "known to be committed up to", shown(&contents.committed, "nothing", position));
    line(&mut text, "removed from the log up to", shown(&contents.purged, "nothing", position));
    line(&mut text, "log", format!("{} entries", contents.log.len()));
    for StoredEntry { index, entry: stored } in &contents.log {
        let told = match stored {
            Value::Read(read) => entry(read)?,
            other => shown(other, "none", |_| String::new()),
        };
        line(&mut text, &format!("  {index}"), told);
    }
    line(&mut text, "snapshot", shown(&contents.snapshot, "none", snapshot));
    if contents.snapshot != Value::Absent {
        line(&mut text, "state in the snapshot", format!("{} bytes", contents.snapshot_bytes));
        match &contents.state {
            Value::Read(state) => fields(&mut text, state)?,
            other => line(&mut text, "  state", shown(other, "none", |_| String::new())),
        }
    }
    Ok(text)
}

fn line(text: &mut String, what: &str, value: impl Display) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{what}: {value}");
}

fn shown<T>(value: &Value<T>, absent: &str, show: impl Fn(&T) -> String) -> String {
    match value {
        Value::Absent => absent.to_owned(),
        Value::Read(value) => show(value),
        Value::Unreadable(reason) => format!("UNREADABLE: {reason}"),
    }
}

fn identity(Identity { cluster, node }: &Identity) -> String {
    format!("node {node} of the cluster {cluster}")
}

fn vote(VoteRecord { term, voted_for, committed }: &VoteRecord) -> String {
    let elected = if *committed { ", which was elected" } else { "" };
    format!("in term {term} for node {voted_for}{elected}")
}

fn position(LogPosition { term, index }: &LogPosition) -> String {
    format!("{index} (term {term})")
}

fn record(DatabaseRecord { promise, history, repair }: &DatabaseRecord) -> String {
    let starts: Vec<_> = history.0.iter().map(|start| format!("term {} from {}", start.term, start.lsn)).collect();
    let history = if starts.is_empty() { "none".into() } else { starts.join(", ") };
    let repair = repair.map_or("none".into(), |repair| repair.to_string());
    format!("promised term {promise}; WAL history: {history}; repair: {repair}")
}

fn entry(Entry { term, payload }: &Entry) -> Result<String, serde_json::Error> {
    let payload = match payload {
        LogPayload::Blank => "blank".to_owned(),
        LogPayload::Command(Command { id: _, time, actor, cause, change }) => {
            format!("{} by {actor} at {time}: {cause}", serde_json::to_string(change)?)
        }
        LogPayload::Membership(membership) => members(membership),
    };
    Ok(format!("term {term}, {payload}"))
}

fn members(Membership { voters, members }: &Membership) -> String {
    let set = |ids: &mut dyn Iterator<Item = String>| ids.collect::<Vec<_>>().join(", ");
    let sets: Vec<_> = voters.iter().map(|voters| set(&mut voters.iter().map(ToString::to_string))).collect();
    let members = set(&mut members.iter().map(|(id, peer)| format!("{id} at {peer}")));
    format!("membership: voters {}; members {members}", sets.join(" and "))
}

fn snapshot(SnapshotMetadata { last, membership, snapshot_id: _ }: &SnapshotMetadata) -> String {
    let last = last.as_ref().map_or("nothing".into(), position);
    format!("up to {last}; {}", members(&membership.membership))
}

/// The fields of `value`, one in a line; and the items of a field that is a list.
fn fields(text: &mut String, value: &impl Serialize) -> Result<(), serde_json::Error> {
    let value = serde_json::to_value(value)?;
    for (name, value) in value.as_object().into_iter().flatten() {
        match value.as_array() {
            Some(items) => {
                line(text, &format!("  {name}"), format!("{} items", items.len()));
                items.iter().for_each(|item| line(text, "    -", item));
            }
            None => line(text, &format!("  {name}"), value),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use qluster_consensus::raft::store::Store;

    use super::*;

    /// A data directory with the store that the tests of consensus keep.
    fn data_dir() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(STORE_FILE);
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../consensus/tests/data/store-1.redb"), &path).unwrap();
        (dir, path)
    }

    fn printed(dir: &Path, format: Format) -> (String, bool) {
        let mut printed = String::new();
        let whole = run(dir, format, |text| printed.push_str(text)).unwrap();
        (printed, whole)
    }

    #[test]
    fn a_store_is_printed_and_left_as_it_was() {
        let (dir, path) = data_dir();
        let before = std::fs::read(&path).unwrap();
        let (text, whole) = printed(dir.path(), Format::Text);
        assert!(whole);
        for expected in [
            "format: 1\n",
            "identity: node 1 of the cluster 00000000-0000-0000-0000-000000000007\n",
            "removed from the cluster: no\n",
            "vote: in term 1 for node 1, which was elected\n",
            "longest lease granted: not above the default of node-timeout\n",
            "record of the database: promised term 4; WAL history: term 1 from 0/64, term 3 from 100/0; repair: rewind\n",
            "known to be committed up to: 5 (term 1)\n",
            "removed from the log up to: 2 (term 1)\n",
            "log: 18 entries\n",
            "  12: term 1, {\"DownNode\":{\"node\":2}} by operator at 2026-01-31T12:00:00Z: a test\n",
            "snapshot: up to 20 (term 1); membership: voters 1; members 1 at 127.0.0.1:8080, 2 at 127.0.0.1:8080\n",
            "  next_node: 4\n",
        ] {
            assert!(text.contains(expected), "{expected}: not in\n{text}");
        }
        let (json, _) = printed(dir.path(), Format::Json);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["vote"]["term"], 1);
        assert_eq!(json["log"][0]["index"], 3);
        assert_eq!(json["longest_grant"], serde_json::Value::Null);
        assert!(before == std::fs::read(&path).unwrap());
    }

    #[test]
    fn a_damaged_store_is_printed_as_far_as_it_is_read() {
        let (dir, path) = data_dir();
        // The text is in an entry of the log, in the snapshot's events, and nowhere else.
        let mut bytes = std::fs::read(&path).unwrap();
        let places: Vec<_> = (0..bytes.len() - 6).filter(|&at| bytes[at..].starts_with(b"a test")).collect();
        assert!(places.len() > 20);
        for at in places {
            bytes[at] = 0xff;
        }
        std::fs::write(&path, &bytes).unwrap();
        let (text, whole) = printed(dir.path(), Format::Text);
        assert!(!whole);
        assert!(text.contains("problem: a node cannot open it: "), "{text}");
        assert!(text.contains("UNREADABLE") && text.contains("identity: node 1 of"), "{text}");
        assert!(bytes == std::fs::read(&path).unwrap());
    }

    #[test]
    fn the_store_of_a_node_that_runs_is_not_read_and_one_that_is_missing_is_named() {
        let (dir, path) = data_dir();
        let store = Store::open(&path).unwrap();
        let refused = run(dir.path(), Format::Text, |_| {}).unwrap_err();
        assert!(matches!(&refused, Error::Running), "{refused}");
        drop(store);
        let missing = crate::report::chain(&run(&dir.path().join("none"), Format::Text, |_| {}).unwrap_err());
        assert!(missing.contains("none/raft.redb"), "{missing}");
    }
}
