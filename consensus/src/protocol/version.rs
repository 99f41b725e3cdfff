//! The version of what nodes say to each other, of the commands in the cluster's log, and of the state in snapshots: one
//! number for all of it. ARCHITECTURE.md, "Versions", has the rules.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

/// A version. A cluster begins with [`Version::FIRST`] and is raised to a newer one, in its log, once all of its members
/// know that. Until then nobody says or writes what older versions do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u16);

impl Version {
    /// What a log is written in before it says otherwise.
    pub const FIRST: Self = Self(1);
}

impl Default for Version {
    fn default() -> Self {
        Self::FIRST
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The versions that a program knows, or that a node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest.
    pub oldest: Version,
    /// The newest.
    pub newest: Version,
}

impl Versions {
    /// Those that this program knows.
    pub const KNOWN: Self = Self { oldest: Version::FIRST, newest: Version::FIRST };

    /// Whether a node that speaks these and dials one that speaks `dialed` has a version in common with it.
    ///
    /// # Errors
    ///
    /// Which of the two is too old.
    pub fn meet(self, dialed: Self) -> Result<(), Unmet> {
        if self.newest < dialed.oldest {
            Err(Unmet::Dialing { newest: self.newest, oldest: dialed.oldest })
        } else if dialed.newest < self.oldest {
            Err(Unmet::Dialed { newest: dialed.newest, oldest: self.oldest })
        } else {
            Ok(())
        }
    }

    fn check(self, version: Version) -> Result<(), UnknownVersion> {
        match self.oldest <= version && version <= self.newest {
            true => Ok(()),
            false => Err(UnknownVersion { version, known: self }),
        }
    }
}

/// Two nodes have no version in common. Both log the sentence, so it does not say "this node".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// The one that dials is too old.
    #[error(
        "the node that dials knows version {newest} at most, and the one that it dials speaks {oldest} at least: upgrade \
         qluster on the one that dials"
    )]
    Dialing {
        /// The newest that it knows.
        newest: Version,
        /// The oldest that the other speaks.
        oldest: Version,
    },
    /// The one that is dialed is too old.
    #[error(
        "the node that is dialed knows version {newest} at most, and the one that dials it speaks {oldest} at least: \
         upgrade qluster on the one that is dialed"
    )]
    Dialed {
        /// The newest that it knows.
        newest: Version,
        /// The oldest that the other speaks.
        oldest: Version,
    },
}

/// The log or a snapshot is of a version that this program does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster speaks version {version}, and this qluster knows versions {} to {}: install one that knows it",
    known.oldest, known.newest
)]
pub struct UnknownVersion {
    /// The version of the log or snapshot.
    pub version: Version,
    /// The versions that this program knows.
    pub known: Versions,
}

/// The versions that a node speaks: those that it knows, but none that its cluster has left behind. Clones share it.
#[derive(Clone, Debug)]
pub struct Spoken(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    known: Versions,
    /// What the cluster was raised to, as far as this node knows.
    cluster: AtomicU16,
    /// The first that it met and does not know.
    unknown: OnceLock<UnknownVersion>,
}

impl Spoken {
    /// What a node speaks whose program knows `known`, and that knows nothing of its cluster yet.
    pub fn new(known: Versions) -> Self {
        Self(Arc::new(Inner { known, cluster: AtomicU16::new(0), unknown: OnceLock::new() }))
    }

    /// What is spoken now.
    pub fn now(&self) -> Versions {
        let Versions { oldest, newest } = self.0.known;
        Versions { oldest: oldest.max(Version(self.0.cluster.load(Ordering::Acquire))), newest }
    }

    /// Fails if the program does not know `version`.
    pub(crate) fn check(&self, version: Version) -> Result<(), UnknownVersion> {
        self.0.known.check(version)
    }

    /// Notes that the cluster speaks `version`. If the program does not know that one, it fails and notes nothing of the
    /// cluster.
    pub(crate) fn follow(&self, version: Version) -> Result<(), UnknownVersion> {
        self.0.known.check(version).inspect_err(|&unknown| {
            self.0.unknown.get_or_init(|| unknown);
        })?;
        self.0.cluster.fetch_max(version.0, Ordering::AcqRel);
        Ok(())
    }

    /// The version that made this node stop; None if none did. openraft keeps only the words of an error.
    pub(crate) fn unknown(&self) -> Option<UnknownVersion> {
        self.0.unknown.get().copied()
    }
}

/// The newest version that all members know, if it is newer than `cluster`, which the cluster speaks. `newest` has the
/// newest version of each member, None for one that has not told it lately.
pub(crate) fn next(cluster: Version, newest: impl IntoIterator<Item = Option<Version>>) -> Option<Version> {
    let newest: Option<Vec<Version>> = newest.into_iter().collect();
    newest?.into_iter().min().filter(|&newest| newest > cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(oldest: u16, newest: u16) -> Versions {
        Versions { oldest: Version(oldest), newest: Version(newest) }
    }

    #[test]
    fn two_meet_if_they_have_a_version_in_common() {
        let (newest, oldest) = (Version(1), Version(2));
        for (dialing, dialed, expected) in [
            (versions(1, 1), versions(1, 1), Ok(())),
            (versions(1, 1), versions(1, 2), Ok(())),
            (versions(2, 3), versions(1, 2), Ok(())),
            (versions(2, 3), versions(1, 1), Err(Unmet::Dialed { newest, oldest })),
            (versions(1, 1), versions(2, 3), Err(Unmet::Dialing { newest, oldest })),
        ] {
            assert_eq!(dialing.meet(dialed), expected, "{dialing:?} {dialed:?}");
        }
    }

    #[test]
    fn a_cluster_is_raised_to_what_its_last_member_knows() {
        let next = |newest: &[Option<u16>]| next(Version(1), newest.iter().map(|newest| newest.map(Version)));
        for (newest, expected) in [
            (&[Some(2), Some(2), Some(2)][..], Some(2)),
            (&[Some(3), Some(2), Some(4)], Some(2)),
            (&[Some(2), Some(1), Some(2)], None),
            // Nobody knows what that one can.
            (&[Some(2), None, Some(2)], None),
            (&[], None),
        ] {
            assert_eq!(next(newest), expected.map(Version), "{newest:?}");
        }
    }

    #[test]
    fn a_node_leaves_behind_what_its_cluster_does_and_follows_to_nothing_that_it_does_not_know() {
        let spoken = Spoken::new(versions(1, 2));
        assert_eq!(spoken.now(), versions(1, 2));
        spoken.follow(Version(2)).unwrap();
        spoken.follow(Version(1)).unwrap();
        assert_eq!(spoken.now(), versions(2, 2));
        let error = spoken.follow(Version(3)).unwrap_err().to_string();
        assert!(error.starts_with("the cluster speaks version 3, and this qluster knows versions 1 to 2"), "{error}");
        assert_eq!(spoken.now(), versions(2, 2));
    }
}
