//! Values of `synchronous_standby_names` (PostgreSQL's documentation, "Replication", section "Primary Server").

use qluster_consensus::protocol::database::{SyncRule, standby_name};

/// A name that no standby has. It is in the `synchronous_standby_names` of each standby, so that the setting is never empty
/// before a promotion: a checkpointer that is busy at that moment would learn late that the setting is no longer empty, and
/// until then commits would wait for nobody.
pub(crate) const NOBODY: &str = "qluster_nobody";

/// The names of the standbys that count under a rule.
pub(crate) fn standby_names(rule: &SyncRule) -> Vec<String> {
    match rule.count {
        0 => Vec::new(),
        _ => rule.standbys.iter().map(|&node| standby_name(node, rule.term)).collect(),
    }
}

/// The value of `synchronous_standby_names` for a rule.
pub(crate) fn sync_names(rule: &SyncRule) -> String {
    if rule.count == 0 {
        return String::new();
    }
    let mut names = standby_names(rule);
    if names.is_empty() {
        // No standby can hold the commits, so none may be acknowledged.
        names.push(NOBODY.into());
    }
    format!("ANY {} ({})", rule.count, names.join(", "))
}

/// Who must hold a commit before it is acknowledged: `count` of the standbys with these names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holders {
    pub(crate) count: usize,
    pub(crate) names: Vec<String>,
}

impl Holders {
    /// Those that a rule asks for.
    pub(crate) fn of(rule: &SyncRule) -> Self {
        let names = rule.standbys.iter().map(|&node| standby_name(node, rule.term));
        Self { count: rule.count, names: names.collect() }
    }

    /// Reads a value of `synchronous_standby_names` that qluster has written. None for any other text.
    pub(crate) fn parse(rule: &str) -> Option<Self> {
        if rule.is_empty() {
            return Some(Self { count: 0, names: Vec::new() });
        }
        let (head, names) = rule.strip_suffix(')')?.split_once('(')?;
        let count = head.split_whitespace().nth(1)?.parse().ok()?;
        let names = names.split(',').map(str::trim).filter(|&name| name != NOBODY).map(str::to_owned).collect();
        Some(Self { count, names })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use qluster_consensus::model::{NodeId, Term};

    use super::*;

    proptest! {
        #[test]
        fn any_rule_is_ours_or_none(rule in "(ANY|FIRST|) ?-?[0-9]{0,21} ?\\(?[a-z_0-9, *\"]{0,30}\\)?|\\PC{0,20}") {
            if let Some(holders) = Holders::parse(&rule) {
                prop_assert!(holders.names.iter().all(|name| name != NOBODY && !name.contains(',')));
            }
        }
    }

    #[test]
    fn a_rule_tells_who_must_hold_a_commit() {
        for (rule, expected) in [
            ("", Some((0, vec![]))),
            ("ANY 2 (qluster_2_7, qluster_3_7)", Some((2, vec!["qluster_2_7", "qluster_3_7"]))),
            ("ANY 1 (qluster_nobody)", Some((1, vec![]))),
            ("FIRST 1 (qluster_nobody, qluster_nobody, qluster_2_7)", Some((1, vec!["qluster_2_7"]))),
            ("*", None),
            ("ANY (a)", None),
        ] {
            let expected =
                expected.map(|(count, names)| Holders { count, names: names.into_iter().map(str::to_owned).collect() });
            assert_eq!(Holders::parse(rule), expected, "{rule}");
        }
    }

    #[test]
    fn a_rule_names_standbys_by_node_and_term() {
        let rule = |nodes: &[u64], count| SyncRule {
            term: Term(7),
            standbys: nodes.iter().map(|&node| NodeId(node)).collect(),
            count,
        };
        assert_eq!(sync_names(&rule(&[2, 3], 1)), "ANY 1 (qluster_2_7, qluster_3_7)");
        assert_eq!(sync_names(&rule(&[2, 3], 0)), "");
        assert_eq!(sync_names(&rule(&[], 1)), "ANY 1 (qluster_nobody)");
    }
}
