//! What became of a command whose write failed: a pure function.

use uuid::Uuid;

use crate::model::Term;
use crate::protocol::command::Outcome;
use crate::protocol::state::State;

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was applied, with this outcome.
    Applied(Outcome),
    /// It was not applied, and never will be.
    Superseded,
    /// It is not known yet: it may still be applied.
    Unknown,
}

/// What became of the command `id`, which was written in the term `written`, by a state whose newest entry is of the
/// term `applied`.
///
/// The logs of Raft agree up to any entry that they share. So once an entry of a later term is applied, a command of this
/// term was applied before it or never will be. `applied` must be read before the state is: the command may be applied
/// in between.
pub(crate) fn fate(state: &State, id: Uuid, applied: Term, written: Term) -> Fate {
    match state.outcome(id) {
        Some(outcome) => Fate::Applied(outcome.clone()),
        None if applied > written => Fate::Superseded,
        None => Fate::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LogIndex, NodeId};
    use crate::protocol::command::{Change, Command};

    #[test]
    fn a_command_is_applied_or_superseded_once_a_later_term_is_applied() {
        let [known, other] = [7, 8].map(Uuid::from_u128);
        let change = Change::NobodyLeads { node: NodeId(1) };
        let (time, actor, cause) = Default::default();
        let mut state = State::default();
        let done = state.apply(LogIndex(1), Term(4), Command { id: known, time, actor, cause, change });
        for (case, id, applied, expected) in [
            ("it is applied", known, 4, Fate::Applied(done.clone())),
            ("it was applied before the term ended", known, 5, Fate::Applied(done)),
            ("its term goes on", other, 4, Fate::Unknown),
            ("this node has not applied an entry of its term yet", other, 3, Fate::Unknown),
            ("a later term came, and it did not", other, 5, Fate::Superseded),
        ] {
            assert_eq!(fate(&state, id, Term(applied), Term(4)), expected, "{case}");
        }
    }
}
