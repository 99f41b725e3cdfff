//! How the leader of a term comes to have its primary, and when it gives the term up: pure functions.

use crate::model::{Lsn, Term, WalHistory};

/// How the database of the leader of a term becomes its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promotion {
    /// It is the term's primary, and announced: it serves.
    Serve,
    /// It was the primary before, and goes on under the new term, with its WAL and its timeline as they are.
    GoOn,
    /// It was promoted in this term, which was not announced. Promoting it again shows whether that promotion succeeded.
    Confirm,
    /// It is fenced, if it is not, and promoted.
    Promote,
}

/// How the database of the leader of `term` becomes its primary. It `serves` if it is a primary by qluster's order, and
/// `history` says which terms wrote its WAL.
pub(crate) fn promotion(term: Term, announced: bool, serves: bool, history: &WalHistory) -> Promotion {
    match (announced, serves, begun(term, history)) {
        (true, _, _) => Promotion::Serve,
        (false, true, None) => Promotion::GoOn,
        (false, true, Some(_)) => Promotion::Confirm,
        (false, false, _) => Promotion::Promote,
    }
}

/// Whether the promotion of `term` is spent: it was begun, the database wrote something as the primary, and went down.
/// Its WAL ends at `end` now. Whoever followed it may have what it lost, so it must not be promoted in this term again:
/// another term has to recruit first.
pub(crate) fn is_spent(term: Term, history: &WalHistory, end: Lsn) -> bool {
    begun(term, history).is_some_and(|start| start < end)
}

/// Where the WAL of `term` begins, if its promotion was begun.
fn begun(term: Term, history: &WalHistory) -> Option<Lsn> {
    history.0.last().filter(|start| start.term == term).map(|start| start.lsn)
}

/// What a leader does after it failed to serve its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// It tries again.
    TryAgain,
    /// It gives the term up: others may be fit.
    GiveUp,
}

/// What a leader does after it failed to serve its term. A primary that was announced is kept, however slowly it serves:
/// whether it is fit is for its node to find out. A database that was not promoted is tried twice.
pub(crate) fn after_failure(announced: bool, failed_before: bool) -> AfterFailure {
    match !announced && failed_before {
        true => AfterFailure::GiveUp,
        false => AfterFailure::TryAgain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WalStart;

    fn history(starts: &[(u64, u64)]) -> WalHistory {
        WalHistory(starts.iter().map(|&(term, lsn)| WalStart { term: Term(term), lsn: Lsn(lsn) }).collect())
    }

    #[test]
    fn a_leader_serves_goes_on_or_promotes() {
        let (before, begun) = (history(&[(3, 10)]), history(&[(3, 10), (5, 90)]));
        for (case, announced, serves, history, expected) in [
            ("announced", true, true, &begun, Promotion::Serve),
            ("announced, and down: serving finds that", true, false, &begun, Promotion::Serve),
            ("a primary of an earlier term", false, true, &before, Promotion::GoOn),
            ("promoted, and not announced", false, true, &begun, Promotion::Confirm),
            ("a standby", false, false, &before, Promotion::Promote),
            ("a standby whose promotion was begun", false, false, &begun, Promotion::Promote),
            ("a standby that has followed nobody", false, false, &history(&[]), Promotion::Promote),
        ] {
            assert_eq!(promotion(Term(5), announced, serves, history), expected, "{case}");
        }
    }

    #[test]
    fn a_promotion_is_spent_once_the_term_has_written() {
        let begun = history(&[(3, 10), (5, 90)]);
        for (case, term, end, expected) in [
            ("it wrote nothing", 5, 90, false),
            ("it wrote", 5, 91, true),
            ("it has less than where the term began", 5, 89, false),
            ("another term wrote", 6, 91, false),
        ] {
            assert_eq!(is_spent(Term(term), &begun, Lsn(end)), expected, "{case}");
        }
    }

    #[test]
    fn a_term_is_given_up_after_two_failures_unless_its_primary_is_announced() {
        for (announced, failed_before, expected) in [
            (false, false, AfterFailure::TryAgain),
            (false, true, AfterFailure::GiveUp),
            (true, false, AfterFailure::TryAgain),
            (true, true, AfterFailure::TryAgain),
        ] {
            assert_eq!(after_failure(announced, failed_before), expected, "{announced} {failed_before}");
        }
    }
}
