//! The statements that do not write, as the cluster has agreed on them.
//!
//! A leader writes what it adds and what it withdraws, not the whole list again: entries stay small, and a list that
//! does not change costs nothing. Every change is for the next generation, and of the term of its entry. So a change that
//! another leader found, or that was found before another change, is refused.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{DatabaseStatements, ReadonlyStatements, StatementHash, Term};

/// How many hashes are kept at most, all databases together: 400 kB in an answer.
pub const READONLY_HASHES: usize = 20_000;
/// How many hashes an entry adds or withdraws at most, so that it stays well below the limit of a message between nodes.
pub const READONLY_BATCH: usize = 2_000;

/// What the cluster has agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readonly {
    /// Counts the changes.
    pub generation: u64,
    /// By the name of the database.
    pub databases: BTreeMap<String, Judged>,
    /// Why the leader can find none; None if it can.
    pub reason: Option<String>,
}

/// The statements of a database, and what they were judged by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Version of the hashes' algorithm.
    pub version: String,
    /// Major version of the PostgreSQL.
    pub postgresql: u32,
    /// The generation that changed it last.
    pub generation: u64,
    /// Identifies what the catalogue said: while a node's catalogue has it, all that is here holds there, too, whether
    /// or not the node knows the statements.
    pub basis: String,
    /// The hashes.
    pub hashes: BTreeSet<StatementHash>,
}

/// What a leader wants to be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadonlyChange {
    /// The term of the leader that found it out.
    pub term: Term,
    /// The generation that this makes.
    pub generation: u64,
    /// What.
    pub what: ReadonlyUpdate,
}

/// What changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadonlyUpdate {
    /// Statements of a database are added and withdrawn.
    Statements {
        /// Name of the database.
        database: String,
        /// Version of the hashes' algorithm. Those of another one are dropped.
        version: String,
        /// Major version of the PostgreSQL.
        postgresql: u32,
        /// By what all that is there afterwards was judged.
        basis: String,
        /// New ones.
        added: Vec<StatementHash>,
        /// Those that go.
        withdrawn: Vec<StatementHash>,
    },
    /// The database is gone, or no longer looked at.
    Forgotten {
        /// Its name.
        database: String,
    },
    /// Why there are none; None if there is no longer such a reason.
    Reason(Option<String>),
}

impl ReadonlyChange {
    /// Whether it makes an event. Statements that are only added do not: that takes nothing away, and is frequent at first.
    pub fn is_event(&self) -> bool {
        match &self.what {
            ReadonlyUpdate::Statements { withdrawn, .. } => !withdrawn.is_empty(),
            ReadonlyUpdate::Forgotten { .. } => true,
            ReadonlyUpdate::Reason(reason) => reason.is_some(),
        }
    }
}

impl Readonly {
    /// Applies a change that was written in `term`.
    ///
    /// # Errors
    ///
    /// Why the change does not count: it is of another term, does not follow the present generation, names a database of
    /// which no statements are known, or there would be more than [`READONLY_HASHES`].
    pub fn apply(&mut self, term: Term, change: &ReadonlyChange) -> Result<(), String> {
        if change.term != term {
            return Err(format!("term {} is over: this entry is of term {term}", change.term));
        }
        if change.generation != self.generation + 1 {
            let (known, wanted) = (self.generation, change.generation);
            return Err(format!("the statements are at generation {known}: generation {wanted} does not follow"));
        }
        match &change.what {
            ReadonlyUpdate::Statements { database, version, postgresql, basis, added, withdrawn } => {
                let others = self.databases.iter().filter(|(name, _)| *name != database);
                let others: usize = others.map(|(_, judged)| judged.hashes.len()).sum();
                let known = self.databases.get(database).filter(|known| known.version == *version);
                let mut hashes = known.map(|known| known.hashes.clone()).unwrap_or_default();
                for hash in withdrawn {
                    hashes.remove(hash);
                }
                hashes.extend(added);
                if others + hashes.len() > READONLY_HASHES {
                    return Err(format!("more than {READONLY_HASHES} statements"));
                }
                let (version, basis) = (version.clone(), basis.clone());
                let generation = change.generation;
                let judged = Judged { version, postgresql: *postgresql, generation, basis, hashes };
                self.databases.insert(database.clone(), judged);
            }
            ReadonlyUpdate::Forgotten { database } => {
                if self.databases.remove(database).is_none() {
                    return Err(format!("no statements of the database {database} are known"));
                }
            }
            ReadonlyUpdate::Reason(reason) => self.reason = reason.clone(),
        }
        self.generation = change.generation;
        Ok(())
    }

    /// As the API tells it.
    pub fn told(&self) -> ReadonlyStatements {
        let told = |(database, judged): (&String, &Judged)| DatabaseStatements {
            database: database.clone(),
            algorithm: DatabaseStatements::ALGORITHM.into(),
            version: judged.version.clone(),
            postgresql: judged.postgresql,
            generation: judged.generation,
            hashes: judged.hashes.iter().copied().collect(),
        };
        ReadonlyStatements(self.databases.iter().map(told).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(added: &[u64], withdrawn: &[u64]) -> ReadonlyUpdate {
        let hashes = |numbers: &[u64]| numbers.iter().copied().map(StatementHash).collect();
        ReadonlyUpdate::Statements {
            database: "app".into(),
            version: "3.18".into(),
            postgresql: 15,
            basis: "b".into(),
            added: hashes(added),
            withdrawn: hashes(withdrawn),
        }
    }

    fn change(term: u64, generation: u64, what: ReadonlyUpdate) -> ReadonlyChange {
        ReadonlyChange { term: Term(term), generation, what }
    }

    #[test]
    fn statements_are_added_and_withdrawn_and_each_change_makes_a_generation() {
        let mut known = Readonly::default();
        known.apply(Term(1), &change(1, 1, statements(&[3, 1, 2], &[]))).unwrap();
        known.apply(Term(1), &change(1, 2, statements(&[4], &[1]))).unwrap();
        let told = known.told().0.remove(0);
        assert_eq!((told.generation, told.hashes), (2, [2, 3, 4].map(StatementHash).to_vec()));
        known.apply(Term(1), &change(1, 3, ReadonlyUpdate::Forgotten { database: "app".into() })).unwrap();
        assert_eq!(known.told().0, []);
        assert_eq!(known.generation, 3);
    }

    #[test]
    fn what_is_of_another_term_or_does_not_follow_changes_nothing() {
        let mut known = Readonly::default();
        known.apply(Term(2), &change(2, 1, statements(&[1], &[]))).unwrap();
        let before = known.clone();
        for (term, stale, expected) in [
            (3, change(2, 2, statements(&[7], &[])), "term 2 is over"),
            (2, change(2, 1, statements(&[7], &[])), "does not follow"),
            (2, change(2, 3, statements(&[7], &[])), "does not follow"),
            (2, change(2, 2, ReadonlyUpdate::Forgotten { database: "other".into() }), "no statements of"),
        ] {
            let reason = known.apply(Term(term), &stale).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
            assert_eq!(known, before);
        }
    }

    #[test]
    fn there_are_never_more_than_the_limit() {
        let mut known = Readonly::default();
        let all: Vec<u64> = (0..READONLY_HASHES as u64).collect();
        known.apply(Term(1), &change(1, 1, statements(&all, &[]))).unwrap();
        let more = statements(&[u64::MAX], &[]);
        assert!(known.apply(Term(1), &change(1, 2, more)).unwrap_err().contains("more than"));
        known.apply(Term(1), &change(1, 2, statements(&[u64::MAX], &[0]))).unwrap();
    }

    #[test]
    fn only_what_is_taken_from_somebody_is_an_event() {
        for (what, expected) in [
            (statements(&[1], &[]), false),
            (statements(&[], &[]), false),
            (statements(&[1], &[2]), true),
            (ReadonlyUpdate::Forgotten { database: "app".into() }, true),
            (ReadonlyUpdate::Reason(Some("why".into())), true),
            (ReadonlyUpdate::Reason(None), false),
        ] {
            assert_eq!(change(1, 1, what.clone()).is_event(), expected, "{what:?}");
        }
    }
}
