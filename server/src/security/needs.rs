//! What each operation needs of whoever asks for it: the one table, which the description is made from as well.

use super::Kind;

/// What an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing, also where tokens are configured: load balancers, which have none, ask for these, and they tell no
    /// more than who leads and how this node is. So do people for the pages, in which nothing of the cluster is.
    Nothing,
    /// A token of this kind, or of a greater one.
    Token(Kind),
    /// Proof of the cluster's secret, which the channel itself asks for.
    Secret,
}

const READ: Needs = Needs::Token(Kind::Read);
const ADMIN: Needs = Needs::Token(Kind::Admin);

/// The operations, by the name of their method in the trait. One that is missing here is served to nobody, and a test
/// fails; so does one whose method does not begin with [`Allowed`](crate::api::Allowed).
const TABLE: [(&str, Needs); 27] = [
    ("is_leader", Needs::Nothing),
    ("map", READ),
    ("status", READ),
    ("info", READ),
    ("config_get", READ),
    ("config_post", ADMIN),
    ("leader_get", READ),
    ("leader_post", ADMIN),
    ("node_add", ADMIN),
    ("node_upgrade", ADMIN),
    ("node_remove", ADMIN),
    ("node_down", ADMIN),
    ("db_config", READ),
    ("sql_readonly", READ),
    ("rpc", READ),
    ("events", READ),
    ("metrics", READ),
    ("primary", Needs::Nothing),
    ("replica", Needs::Nothing),
    ("read_only", Needs::Nothing),
    ("health", Needs::Nothing),
    ("liveness", Needs::Nothing),
    ("readiness", Needs::Nothing),
    ("docs", Needs::Nothing),
    ("page", Needs::Nothing),
    ("page_file", Needs::Nothing),
    ("peer", Needs::Secret),
];

/// What the operation of this name needs; none where there is no such operation. HEAD and OPTIONS of one, as balancers
/// ask, need what GET does.
pub fn needs(operation: &str) -> Option<Needs> {
    let operation = operation.strip_suffix("_head").or_else(|| operation.strip_suffix("_options")).unwrap_or(operation);
    TABLE.iter().find(|(name, _)| *name == operation).map(|(_, needs)| *needs)
}
