//! Positions in the write-ahead log (WAL) of the databases, and how the histories of two WALs compare.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Term;

/// A byte position in PostgreSQL's WAL (PostgreSQL documentation, `pg_lsn`), written as `16/B374D848`.
///
/// LSNs of different timelines do not compare; see [`WalPosition`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// How far a database's WAL reaches: the term of the primary that wrote its end, and where that end is.
///
/// Positions compare by term, then LSN, as Raft compares logs (Raft, section 5.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct WalPosition {
    /// The term of the primary that wrote the end.
    pub term: Term,
    /// The end of the WAL on disk.
    pub lsn: Lsn,
}

/// Where the WAL of a term starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct WalStart {
    /// The term.
    pub term: Term,
    /// The first position that a primary of this term wrote.
    pub lsn: Lsn,
}

/// Which terms wrote which part of a database's WAL, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalHistory(pub Vec<WalStart>);

impl WalHistory {
    /// The position of a WAL with this history that ends at `end`. Its term is that of the last start before the end, or 0
    /// if there is none. A term that has written nothing does not count, as in Raft's logs.
    pub fn position(&self, end: Lsn) -> WalPosition {
        let last = self.0.iter().rev().find(|start| start.lsn < end);
        WalPosition { term: last.map_or(Term(0), |start| start.term), lsn: end }
    }

    /// Checks whether a WAL with this history that ends at `end` is a prefix of the WAL of a primary with the history
    /// `primary`. Then its database can follow the primary as it is.
    ///
    /// # Errors
    ///
    /// If it is no prefix: the position where the two part, to which the database has to be rewound.
    pub fn is_prefix_of(&self, end: Lsn, primary: &WalHistory) -> Result<(), Lsn> {
        let mine = self.up_to(end);
        let common = mine.iter().zip(&primary.0).take_while(|(mine, theirs)| mine == theirs).count();
        let end_of_mine = mine.get(common).map_or(end, |start| start.lsn);
        let end_of_theirs = primary.0.get(common).map(|start| start.lsn);
        if common == mine.len() && end_of_theirs.is_none_or(|theirs| end <= theirs) {
            return Ok(());
        }
        Err(end_of_theirs.map_or(end_of_mine, |theirs| theirs.min(end_of_mine)))
    }

    /// The history of a WAL that ends at `end`, is a prefix of `primary`'s, and is about to follow it. It takes over the
    /// starts that it lacks. The term of its position rises only when its WAL passes them.
    pub fn following(&self, end: Lsn, primary: &WalHistory) -> Self {
        let mut mine = self.up_to(end).to_vec();
        let newest = mine.last().map(|start| start.term);
        mine.extend(primary.0.iter().filter(|start| newest.is_none_or(|term| term < start.term)));
        Self(mine)
    }

    /// The history after a rewind to `fork`, the position where this WAL and `primary`'s part.
    pub fn rewound(&self, fork: Lsn, primary: &WalHistory) -> Self {
        Self(self.up_to(fork).iter().filter(|start| primary.0.contains(start)).copied().collect())
    }

    /// The history of a database that is promoted in `term` while its WAL ends at `end`.
    pub fn promoted(&self, term: Term, end: Lsn) -> Self {
        let mut mine = self.up_to(end).to_vec();
        mine.push(WalStart { term, lsn: end });
        Self(mine)
    }

    /// The history without what `term` and later ones wrote.
    pub fn before(&self, term: Term) -> Self {
        Self(self.0.iter().filter(|start| start.term < term).copied().collect())
    }

    /// The starts that the WAL has reached. Those beyond its end never came true. A start at the end counts here: a
    /// database that was promoted and wrote nothing may have a timeline of its own, which a rewind undoes.
    fn up_to(&self, end: Lsn) -> &[WalStart] {
        let count = self.0.iter().take_while(|start| start.lsn <= end).count();
        &self.0[..count]
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Display for WalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {}, {}", self.term, self.lsn)
    }
}

impl std::str::FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let half = |half: &str| {
            let digits = (1..=8).contains(&half.len()) && half.bytes().all(|byte| byte.is_ascii_hexdigit());
            digits.then(|| u64::from_str_radix(half, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| format!("expected an LSN such as `16/B374D848`, got `{text}`"))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Lsn {
    fn schema_name() -> String {
        "Lsn".into()
    }

    fn json_schema(_: &mut schemars::r#gen::SchemaGenerator) -> schemars::schema::Schema {
        use schemars::schema::{InstanceType, Metadata, SchemaObject};
        SchemaObject {
            instance_type: Some(InstanceType::String.into()),
            metadata: Some(Box::new(Metadata {
                description: Some("A byte position in PostgreSQL's WAL, as `pg_lsn` writes it.".into()),
                examples: vec![serde_json::json!("16/B374D848")],
                ..Default::default()
            })),
            ..Default::default()
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn history(starts: &[(u64, u64)]) -> WalHistory {
        WalHistory(starts.iter().map(|&(term, lsn)| WalStart { term: Term(term), lsn: Lsn(lsn) }).collect())
    }

    #[test]
    fn the_term_of_a_position_rises_only_as_the_wal_passes_its_start() {
        let history = history(&[(1, 0), (4, 100)]);
        for (end, term) in [(0, 0), (1, 1), (100, 1), (101, 4), (500, 4)] {
            assert_eq!(history.position(Lsn(end)), WalPosition { term: Term(term), lsn: Lsn(end) });
        }
        assert!(history.position(Lsn(101)) > history.position(Lsn(100)));
    }

    #[test]
    fn a_wal_is_a_prefix_while_the_histories_agree_and_it_ends_before_what_it_lacks() {
        let primary = history(&[(1, 0), (4, 100)]);
        for (mine, end, expected) in [
            (history(&[(1, 0)]), 80, Ok(())),
            (history(&[(1, 0)]), 100, Ok(())),
            (history(&[(1, 0)]), 101, Err(Lsn(100))),
            (history(&[(1, 0), (4, 100)]), 150, Ok(())),
            (history(&[(1, 0), (3, 90)]), 120, Err(Lsn(90))),
            (history(&[(1, 0), (3, 110)]), 120, Err(Lsn(100))),
            // A start beyond the end never came true.
            (history(&[(1, 0), (3, 90)]), 89, Ok(())),
        ] {
            assert_eq!(mine.is_prefix_of(Lsn(end), &primary), expected, "{mine:?} up to {end}");
        }
    }

    #[test]
    fn following_takes_over_what_is_lacking_and_rewinding_drops_what_is_not_shared() {
        let primary = history(&[(1, 0), (4, 100)]);
        assert_eq!(history(&[(1, 0), (3, 90)]).following(Lsn(80), &primary), primary);
        assert_eq!(history(&[(1, 0), (3, 90)]).rewound(Lsn(90), &primary), history(&[(1, 0)]));
        assert_eq!(history(&[(1, 0), (3, 90)]).promoted(Term(5), Lsn(70)), history(&[(1, 0), (5, 70)]));
    }

    proptest! {
        #[test]
        fn an_lsn_is_read_as_it_is_printed(lsn: u64) {
            prop_assert_eq!(Lsn(lsn).to_string().parse::<Lsn>().unwrap(), Lsn(lsn));
        }

        #[test]
        fn any_text_is_an_lsn_or_refused(text in ".{0,20}") {
            let _ = text.parse::<Lsn>();
        }

        #[test]
        fn a_rewound_wal_is_a_prefix(
            mine in proptest::collection::vec((1..6u64, 0..50u64), 0..5),
            theirs in proptest::collection::vec((1..6u64, 0..50u64), 0..5),
            end in 0..60u64,
        ) {
            let ordered = |mut starts: Vec<(u64, u64)>| {
                starts.sort();
                starts.dedup_by_key(|start| start.0);
                let mut lsn = 0;
                history(&starts.into_iter().map(|(term, step)| { lsn += step; (term, lsn) }).collect::<Vec<_>>())
            };
            let (mine, theirs) = (ordered(mine), ordered(theirs));
            if let Err(fork) = mine.is_prefix_of(Lsn(end), &theirs) {
                prop_assert!(fork <= Lsn(end));
                let rewound = mine.rewound(fork, &theirs);
                prop_assert_eq!(rewound.is_prefix_of(fork, &theirs), Ok(()));
                prop_assert_eq!(rewound.following(fork, &theirs), theirs);
            }
        }
    }
}
