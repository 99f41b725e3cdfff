//! What a round changes in the cluster: pure.

use std::collections::{BTreeMap, BTreeSet};

use qluster_consensus::model::{DatabaseStatements, StatementHash};
use qluster_consensus::protocol::readonly::{Judged, READONLY_BATCH, ReadonlyUpdate};

/// What was found out about the statements of a database.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// Those that do not write, those called most often first.
    pub(super) safe: Vec<StatementHash>,
    /// Those that may write, and why. This outweighs `safe`: a statement that writes may have the hash of one that does
    /// not.
    pub(super) unsafe_: BTreeMap<StatementHash, String>,
    /// Whether all statements were judged, since the catalogue has changed: a statement in neither list is unknown.
    pub(super) all: bool,
}

/// A change of what is published, and its cause, in a sentence.
pub(super) type Change = (ReadonlyUpdate, String);

/// The changes that lead from what the cluster has agreed on to what was found. There is room for `room` more hashes.
pub(super) fn changes(
    database: &str,
    postgresql: u32,
    basis: &str,
    agreed: Option<&Judged>,
    findings: &Findings,
    room: usize,
) -> Vec<Change> {
    let version = DatabaseStatements::VERSION;
    let old = agreed.map(|agreed| agreed.basis.as_str()).unwrap_or_default();
    // Hashes of another algorithm are dropped by whatever is written.
    let published = agreed.filter(|agreed| agreed.version == version).map(|agreed| &agreed.hashes);
    let published = published.cloned().unwrap_or_default();
    let is_safe = |hash: &StatementHash| !findings.unsafe_.contains_key(hash);
    let safe: BTreeSet<StatementHash> = findings.safe.iter().copied().filter(is_safe).collect();
    let goes = |hash: &&StatementHash| !is_safe(hash) || findings.all && !safe.contains(hash);
    let withdrawn: Vec<StatementHash> = published.iter().filter(goes).copied().collect();
    let mut added: Vec<StatementHash> = Vec::new();
    let mut seen = published.clone();
    let room = room + withdrawn.len();
    for hash in findings.safe.iter().filter(|hash| is_safe(hash)) {
        if added.len() < room && seen.insert(*hash) {
            added.push(*hash);
        }
    }
    if withdrawn.is_empty() && added.is_empty() && (old == basis || agreed.is_none()) {
        return Vec::new();
    }
    let statements = |basis: &str, added: &[StatementHash], withdrawn: &[StatementHash]| ReadonlyUpdate::Statements {
        database: database.into(),
        version: version.into(),
        postgresql,
        basis: basis.into(),
        added: added.to_vec(),
        withdrawn: withdrawn.to_vec(),
    };
    let mut told = Vec::new();
    let batches: Vec<_> = withdrawn.chunks(READONLY_BATCH).collect();
    for (index, batch) in batches.iter().enumerate() {
        // What is left counts as judged by the new basis only after the last of them is withdrawn.
        let by = if index + 1 == batches.len() { basis } else { old };
        told.push((statements(by, &[], batch), reasons(database, batch, findings)));
    }
    let first = if batches.is_empty() && added.is_empty() { vec![&[][..]] } else { Vec::new() };
    for batch in first.into_iter().chain(added.chunks(READONLY_BATCH)) {
        let cause = format!("database {database}: {} more statements do not write", batch.len());
        told.push((statements(basis, batch, &[]), cause));
    }
    told
}

/// Why statements are withdrawn: each reason once, with its number of statements and one of their hashes.
fn reasons(database: &str, withdrawn: &[StatementHash], findings: &Findings) -> String {
    let unknown = "the catalogue has changed, and pg_stat_statements no longer has the statement";
    let mut counts: BTreeMap<&str, (usize, StatementHash)> = BTreeMap::new();
    for hash in withdrawn {
        let reason = findings.unsafe_.get(hash).map_or(unknown, String::as_str);
        counts.entry(reason).or_insert((0, *hash)).0 += 1;
    }
    let mut sorted: Vec<_> = counts.into_iter().collect();
    sorted.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let told: Vec<String> = sorted
        .iter()
        .take(5)
        .map(|(reason, (count, hash))| match count {
            1 => format!("{hash}: {reason:.300}"),
            _ => format!("{hash} and {} more: {reason:.300}", count - 1),
        })
        .collect();
    let more = if sorted.len() > told.len() { "; and other reasons" } else { "" };
    format!("database {database}: {} statements withdrawn: {}{more}", withdrawn.len(), told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(numbers: &[u64]) -> Vec<StatementHash> {
        numbers.iter().copied().map(StatementHash).collect()
    }

    fn judged(numbers: &[u64]) -> Judged {
        Judged {
            version: DatabaseStatements::VERSION.into(),
            postgresql: 15,
            generation: 1,
            basis: "old".into(),
            hashes: hashes(numbers).into_iter().collect(),
        }
    }

    fn findings(safe: &[u64], refused: &[u64], all: bool) -> Findings {
        let unsafe_ = refused.iter().map(|&hash| (StatementHash(hash), "it writes".into())).collect();
        Findings { safe: hashes(safe), unsafe_, all }
    }

    fn summary(told: &[Change]) -> Vec<(String, usize, usize)> {
        let one = |(update, _): &Change| match update {
            ReadonlyUpdate::Statements { basis, added, withdrawn, .. } => (basis.clone(), added.len(), withdrawn.len()),
            other => panic!("{other:?}"),
        };
        told.iter().map(one).collect()
    }

    #[test]
    fn nothing_is_told_where_nothing_has_changed() {
        for (basis, agreed, found) in [
            ("old", Some(judged(&[1, 2])), findings(&[1], &[3], false)),
            ("new", None, findings(&[], &[1], true)),
            ("old", Some(judged(&[1])), findings(&[1], &[], true)),
        ] {
            assert_eq!(changes("d", 15, basis, agreed.as_ref(), &found, 9), []);
        }
    }

    #[test]
    fn what_is_not_found_safe_is_withdrawn_before_the_new_basis_counts() {
        let told = changes("d", 15, "new", Some(&judged(&[1, 2, 3])), &findings(&[1, 4], &[2], true), 9);
        assert_eq!(summary(&told), [("new".into(), 0, 2), ("new".into(), 1, 0)]);
        let cause = &told[0].1;
        assert!(cause.contains("2 statements withdrawn") && cause.contains("0000000000000002: it writes"), "{cause}");
        assert!(cause.contains("0000000000000003: the catalogue has changed"), "{cause}");

        let many: Vec<u64> = (0..READONLY_BATCH as u64 + 1).collect();
        let told = changes("d", 15, "new", Some(&judged(&many)), &findings(&[], &[], true), 9);
        assert_eq!(summary(&told), [("old".into(), 0, READONLY_BATCH), ("new".into(), 0, 1)]);
    }

    #[test]
    fn a_new_basis_is_told_though_all_stay() {
        let told = changes("d", 15, "new", Some(&judged(&[1])), &findings(&[1], &[], true), 9);
        assert_eq!(summary(&told), [("new".into(), 0, 0)]);
    }

    #[test]
    fn a_hash_that_a_writing_statement_has_as_well_is_none() {
        let told = changes("d", 15, "old", Some(&judged(&[1])), &findings(&[2], &[1, 2], false), 9);
        assert_eq!(summary(&told), [("old".into(), 0, 1)]);
    }

    #[test]
    fn those_called_most_come_first_where_there_is_no_room_for_all() {
        let told = changes("d", 15, "old", Some(&judged(&[1])), &findings(&[7, 7, 5, 9], &[], false), 2);
        let ReadonlyUpdate::Statements { added, .. } = &told[0].0 else { panic!("{told:?}") };
        assert_eq!(*added, hashes(&[7, 5]));
    }

    #[test]
    fn hashes_of_another_version_are_replaced() {
        let old = Judged { version: "1".into(), ..judged(&[1, 2]) };
        let told = changes("d", 15, "new", Some(&old), &findings(&[1], &[], true), 9);
        assert_eq!(summary(&told), [("new".into(), 1, 0)]);
    }
}
