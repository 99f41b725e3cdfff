//! Who declared a node down.

use serde::{Deserialize, Serialize};

use crate::model::NodeId;

/// What the API writes before an address as the actor of a change.
const OPERATOR: &str = "operator";
/// What a node writes before its id as the actor of a change that it wants by itself.
const NODE: &str = "node ";

/// Who declared a node down: the actor of the change that did so.
///
/// In the log, in snapshots and in the API this is a text: the actor of the command. It is written back as it was read, byte
/// for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum DeclaredBy {
    /// An operator, over the API: the whole text, such as `operator at 10.0.0.9`.
    Operator(String),
    /// A node by itself: the one that is down, since its database is not fit, or the leader, since commits waited for it.
    Node(NodeId),
    /// Something else, such as `autoremove`.
    Other(String),
}

impl DeclaredBy {
    /// Whether the node may have itself brought back without having failed since. What an operator declares down stays
    /// down: an operator has a reason that the node does not see.
    pub(crate) fn leaves_return_to_the_node(&self) -> bool {
        !matches!(self, Self::Operator(_))
    }
}

impl From<String> for DeclaredBy {
    fn from(actor: String) -> Self {
        if actor.starts_with(OPERATOR) {
            return Self::Operator(actor);
        }
        let node = actor.strip_prefix(NODE).and_then(|id| id.parse().ok()).map(|id| Self::Node(NodeId(id)));
        // A text that would not be written back as it was read, such as `node 03`, stays as it is.
        node.filter(|node| String::from(node.clone()) == actor).unwrap_or(Self::Other(actor))
    }
}

impl From<DeclaredBy> for String {
    fn from(declared_by: DeclaredBy) -> Self {
        match declared_by {
            DeclaredBy::Operator(actor) | DeclaredBy::Other(actor) => actor,
            DeclaredBy::Node(id) => format!("{NODE}{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_read_as_who_it_is_and_written_back_byte_for_byte() {
        let other = |actor: &str| DeclaredBy::Other(actor.into());
        let operator = |actor: &str| DeclaredBy::Operator(actor.into());
        for (actor, expected, returns) in [
            ("operator at 10.0.0.9", operator("operator at 10.0.0.9"), false),
            ("operator at ::1", operator("operator at ::1"), false),
            ("operator", operator("operator"), false),
            ("node 3", DeclaredBy::Node(NodeId(3)), true),
            ("node 18446744073709551615", DeclaredBy::Node(NodeId(u64::MAX)), true),
            ("autoremove", other("autoremove"), true),
            // Texts that no version of qluster writes.
            ("node 03", other("node 03"), true),
            ("node +3", other("node +3"), true),
            ("node 18446744073709551616", other("node 18446744073709551616"), true),
            ("node ", other("node "), true),
            ("Operator", other("Operator"), true),
            ("", other(""), true),
            ("an unknown actor: ü", other("an unknown actor: ü"), true),
        ] {
            let read = DeclaredBy::from(actor.to_owned());
            assert_eq!(read, expected, "{actor}");
            assert_eq!(read.leaves_return_to_the_node(), returns, "{actor}");
            // As version 1 wrote it, when this was a text: in snapshots, and in what the API tells of the log.
            let bytes = postcard::to_stdvec(actor).unwrap();
            assert_eq!(postcard::to_stdvec(&read).unwrap(), bytes, "{actor}");
            assert_eq!(postcard::from_bytes::<DeclaredBy>(&bytes).unwrap(), read, "{actor}");
            assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::json!(actor));
        }
    }
}
