//! What each operation needs: the one table, which the description of the API is made from as well.

use super::Kind;

/// What an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing, even if there are tokens. Load balancers, which have none, use these operations, and the answers say no
    /// more than who leads and how this node is. People use them for the pages, which hold nothing of the cluster.
    Nothing,
    /// A token of this kind, or of a greater one.
    Token(Kind),
    /// A proof that the node knows the cluster's secret. The channel itself asks for it.
    Secret,
}

const READ: Needs = Needs::Token(Kind::Read);
const ADMIN: Needs = Needs::Token(Kind::Admin);

/// The operations, by the name of their method in the trait. An operation that is missing here is served to nobody, and a
/// test fails. A test also fails if a method does not begin with [`Allowed`](crate::api::Allowed).
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

/// What the operation of this name needs; None if there is no such operation. HEAD and OPTIONS of a check need what GET
/// needs.
pub fn needs(operation: &str) -> Option<Needs> {
    let operation = operation.strip_suffix("_head").or_else(|| operation.strip_suffix("_options")).unwrap_or(operation);
    TABLE.iter().find(|(name, _)| *name == operation).map(|(_, needs)| *needs)
}
