//! The REST API: paths, parameters and what they mean. `openapi.yaml` is emitted from this trait.
//!
//! The operations, their parameters and codes are given. What was added to them is optional: parameters with defaults,
//! and fields in answers. Every operation answers for the node that is asked: a follower answers with what it has
//! applied, and only the leader changes anything. A follower does not forward a change. It answers 417 with the leader's
//! address, so that callers always know whose answer they have, and a partitioned node cannot make them wait.
//!
//! Operations that many programs poll (`/is-leader`, `/map`, `/leader`) never touch the network or the disk.
//!
//! # Layout
//!
//! - This file: the trait, and the parameters of its operations.
//! - `context`: the parts of the node, as the handlers ask them. `check`: the checks of load balancers, a pure function.
//! - `handlers`: the operations. `answer`: what all of them do with a request. `allowed`, `body`: how requests are read.
//!   `etag`, `docs`: answers that are not plain JSON. `status`: the table of status codes.
//! - `routes`: everything that is served. `openapi`: its description.

mod allowed;
mod answer;
pub mod body;
pub mod check;
pub mod context;
mod docs;
pub mod etag;
pub mod handlers;
pub mod openapi;
pub mod routes;
pub mod status;

use std::net::IpAddr;

use dropshot::{
    Body, Header, HttpResponseOk, Path, Query, RequestContext, WebsocketChannelResult, WebsocketConnection,
};
use http::Response;
use qluster_consensus::model::{
    Bytes, ClusterInfo, ClusterMap, ClusterStatus, Config, ConfigUpdate, Duration, Event, Leader, LogIndex, Node,
    NodeId, NodeRole, NodeStatus, Port,
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

pub use self::allowed::Allowed;
use crate::api::body::WholeBody;
use crate::api::etag::Tagged;
use crate::api::status::ApiError;
use crate::database::DbConfig;

/// How many events an answer has at most, and if the caller does not say how many.
pub const EVENT_LIMIT: u32 = 1000;

/// The REST API of a node.
#[dropshot::api_description]
pub trait QlusterApi {
    /// The parts of the node.
    type Context;

    /// Returns 200 if this node is the cluster leader
    ///
    /// That is: it was elected, its lease holds, and it has applied the first entry of its term. No two nodes answer 200 at
    /// once.
    #[endpoint { method = GET, path = "/is-leader" }]
    async fn is_leader(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
    ) -> Result<HttpResponseOk<Leader>, ApiError>;

    /// Returns the cluster map and settings
    ///
    /// With `after-index`, the answer waits until the map is newer than that index. After `wait`, the answer is the map as it
    /// is.
    #[endpoint { method = GET, path = "/map" }]
    async fn map(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        query: Query<WaitQuery>,
    ) -> Result<HttpResponseOk<ClusterMap>, ApiError>;

    /// Returns the state of the nodes: their databases, positions in the WAL, lag
    ///
    /// The answer is what this node has last heard from the others. The leader has the newest answer.
    #[endpoint { method = GET, path = "/status" }]
    async fn status(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
    ) -> Result<HttpResponseOk<ClusterStatus>, ApiError>;

    /// Returns the cluster information needed to start a previously added node
    #[endpoint { method = GET, path = "/info" }]
    async fn info(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
    ) -> Result<HttpResponseOk<ClusterInfo>, ApiError>;

    /// Get cluster configuration
    #[endpoint { method = GET, path = "/config" }]
    async fn config_get(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
    ) -> Result<HttpResponseOk<Config>, ApiError>;

    /// Update cluster configuration
    ///
    /// Send any of the settings; the others stay. Unknown settings are refused, and so are settings that together break the
    /// timing rule (three heartbeats within `node-timeout`): then nothing is changed. The answer has all settings.
    #[endpoint { method = POST, path = "/config", request_body_max_bytes = 65536 }]
    async fn config_post(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        body: WholeBody<ConfigUpdate>,
    ) -> Result<HttpResponseOk<Config>, ApiError>;

    /// Get database configuration
    ///
    /// The settings that the running PostgreSQL of this node reports.
    #[endpoint { method = GET, path = "/db-config" }]
    async fn db_config(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
    ) -> Result<HttpResponseOk<DbConfig>, ApiError>;

    /// Get leader addresses
    #[endpoint { method = GET, path = "/leader" }]
    async fn leader_get(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
    ) -> Result<HttpResponseOk<Leader>, ApiError>;

    /// Change leader
    ///
    /// A planned switchover. The answer is the new leader once it leads, or 412 with the reason if the node is not fit to
    /// lead. `accept-data-loss` is for a cluster in which no node can lead.
    #[endpoint { method = POST, path = "/leader" }]
    async fn leader_post(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        query: Query<NewLeaderQuery>,
    ) -> Result<HttpResponseOk<Leader>, ApiError>;

    /// Add a new node to the cluster (all new nodes initially become listeners)
    ///
    /// The answer is the new node with its id. A host that comes back after it was removed gets a new id.
    #[endpoint { method = POST, path = "/node" }]
    async fn node_add(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        query: Query<AddNodeQuery>,
    ) -> Result<HttpResponseOk<Node>, ApiError>;

    /// Upgrade the listener to a proper node
    ///
    /// Gives the node the role that it was added for: it is enrolled. The node must be reachable and caught up and, if its
    /// role has a database, streaming; otherwise the answer is 412 with the reason. This also brings a node back after
    /// `/node-down`.
    #[endpoint { method = PATCH, path = "/node/{node}" }]
    async fn node_upgrade(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        path: Path<NodePath>,
        query: Query<UpgradeNodeQuery>,
    ) -> Result<HttpResponseOk<Node>, ApiError>;

    /// Remove a node from a cluster
    ///
    /// The removed node notices it, stops its database and does not start it again by itself. The answer is 412 if the
    /// remaining nodes could not form a majority. A leader that is removed hands over first.
    #[endpoint { method = DELETE, path = "/node/{node}" }]
    async fn node_remove(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        path: Path<NodePath>,
    ) -> Result<HttpResponseOk<Node>, ApiError>;

    /// The database of a node has problems: now it can't participate in votings and be a replica for poolers
    ///
    /// This lasts until the node is brought back. A leader hands over first.
    #[endpoint { method = POST, path = "/node-down/{node}" }]
    async fn node_down(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        path: Path<NodePath>,
    ) -> Result<HttpResponseOk<Node>, ApiError>;

    /// Get hashes of queries that don't write anything to the database
    ///
    /// A statement with one of these hashes may be sent to any standby of the database, with any search path. If the header
    /// `if-none-match` has the `etag` of an earlier answer, the answer is 304 while nothing has changed; with `wait` as
    /// well, it waits for a change.
    #[endpoint { method = GET, path = "/sql/readonly" }]
    async fn sql_readonly(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        query: Query<ReadonlyQuery>,
        headers: Header<ReadonlyHeaders>,
    ) -> Result<Tagged, ApiError>;

    /// Human-readable cluster and rpc events
    ///
    /// Text with a line for each event, the newest last.
    #[endpoint { method = GET, path = "/rpc" }]
    async fn rpc(rqctx: RequestContext<Self::Context>, allowed: Allowed) -> Result<Response<Body>, ApiError>;

    /// Cluster events
    ///
    /// The oldest come first. With `after-index`, only events after that log index; with `wait` as well, the answer waits
    /// until there is one.
    #[endpoint { method = GET, path = "/events" }]
    async fn events(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        query: Query<EventsQuery>,
    ) -> Result<HttpResponseOk<Vec<Event>>, ApiError>;

    /// The documentation: its first page, or the file of that name. It is for people, and needs no credential.
    #[endpoint { method = GET, path = "/docs/{path:.*}", unpublished = true }]
    async fn docs(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        path: Path<DocsPath>,
    ) -> Result<Response<Body>, ApiError>;

    /// Whether this node takes writes
    ///
    /// This and the checks below are for load balancers. As with Patroni's, the answer to GET, HEAD and OPTIONS is 200 or
    /// 503. This one is 200 only at the leader, while its lease holds and its database lets clients in: never at two nodes
    /// at once.
    #[endpoint { method = GET, path = "/primary" }]
    async fn primary(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
    ) -> Result<HttpResponseOk<NodeStatus>, ApiError>;

    /// Whether this node has a standby that may be read from
    #[endpoint { method = GET, path = "/replica" }]
    async fn replica(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        query: Query<LagQuery>,
    ) -> Result<HttpResponseOk<NodeStatus>, ApiError>;

    /// Whether this node takes reads: `/primary` or `/replica`
    #[endpoint { method = GET, path = "/read-only" }]
    async fn read_only(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        query: Query<LagQuery>,
    ) -> Result<HttpResponseOk<NodeStatus>, ApiError>;

    /// Whether the database of this node runs
    #[endpoint { method = GET, path = "/health" }]
    async fn health(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
    ) -> Result<HttpResponseOk<NodeStatus>, ApiError>;

    /// Whether this node is alive
    ///
    /// 503 if its consensus has stopped; a restart may help. The body is null while the node is starting or joining.
    #[endpoint { method = GET, path = "/liveness" }]
    async fn liveness(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
    ) -> Result<HttpResponseOk<Option<NodeStatus>>, ApiError>;

    /// Whether this node is a working part of its cluster
    ///
    /// 200 for the leader if it lets clients in, for a standby that streams from it, and for a node without a database that
    /// knows the leader.
    #[endpoint { method = GET, path = "/readiness" }]
    async fn readiness(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        query: Query<LagQuery>,
    ) -> Result<HttpResponseOk<NodeStatus>, ApiError>;

    /// The metrics of this node, in Prometheus' text format
    #[endpoint { method = GET, path = "/metrics" }]
    async fn metrics(rqctx: RequestContext<Self::Context>, allowed: Allowed) -> Result<Response<Body>, ApiError>;

    /// The status page, for people.
    #[endpoint { method = GET, path = "/", unpublished = true }]
    async fn page(rqctx: RequestContext<Self::Context>, allowed: Allowed) -> Result<Response<Body>, ApiError>;

    /// A file of the status page.
    #[endpoint { method = GET, path = "/page/{file}", unpublished = true }]
    async fn page_file(
        rqctx: RequestContext<Self::Context>,
        allowed: Allowed,
        path: Path<FilePath>,
    ) -> Result<Response<Body>, ApiError>;

    /// The channel between the nodes of a cluster; not for clients.
    #[channel { protocol = WEBSOCKETS, path = "/peer", unpublished = true }]
    async fn peer(rqctx: RequestContext<Self::Context>, upgraded: WebsocketConnection) -> WebsocketChannelResult;
}

/// Which map to wait for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WaitQuery {
    /// Wait for a map that is newer than this log index.
    pub after_index: Option<LogIndex>,
    /// How long to wait for it; default 30s, at most 5m. Only with `after-index`.
    pub wait: Option<Duration>,
}

/// How far a standby may be behind.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LagQuery {
    /// How much of the leader's WAL the standby may not have replayed yet: in bytes, or with a unit, `16MB`. A standby
    /// whose lag is larger, or unknown, does not meet the check.
    pub lag: Option<Bytes>,
}

/// Which events, and whether to wait for them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EventsQuery {
    /// Only events after this log index.
    pub after_index: Option<LogIndex>,
    /// How many events to return at most; default 1000. With `after-index` the oldest of those after it, otherwise the
    /// newest.
    pub limit: Option<Limit>,
    /// How long to wait if there is no event after `after-index`; default 0s, at most 5m.
    pub wait: Option<Duration>,
}

/// How many events an answer may have: 1 to [`EVENT_LIMIT`].
#[derive(Clone, Copy, Debug)]
pub struct Limit(pub u32);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let limit = text.parse().ok().filter(|limit| digits && (1..=EVENT_LIMIT).contains(limit));
        let wrong = || de::Error::custom(format!("expected a limit from 1 to {EVENT_LIMIT}, got `{text}`"));
        limit.map(Self).ok_or_else(wrong)
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> String {
        u32::schema_name()
    }

    fn is_referenceable() -> bool {
        false
    }

    fn json_schema(generator: &mut schemars::r#gen::SchemaGenerator) -> schemars::schema::Schema {
        u32::json_schema(generator)
    }
}

/// The node that should lead.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NewLeaderQuery {
    /// New leader ID
    pub node: NodeId,
    /// Make it the leader even though acknowledged commits may be lost. This is only possible if no node can lead, because
    /// nodes that may have more commits are gone or not fit (`reason` in the map says so). Any node accepts this request.
    /// It is recorded as the event `data-loss-accepted`. Default false.
    pub accept_data_loss: Option<bool>,
}

/// A node to add.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AddNodeQuery {
    /// IP address of the listener node
    #[serde(deserialize_with = "ip")]
    pub ip: IpAddr,
    /// Node role: what it becomes when it is enrolled
    pub role: NodeRole,
    /// Its rest api port; default is the port of the node that is asked
    pub api_port: Option<Port>,
}

/// Reads the address of one host. A name is not allowed: the nodes reach each other without a name service.
fn ip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || format!("expected the IPv4 or IPv6 address of one host such as `10.0.0.2`, got `{text}`");
    let ip: Option<IpAddr> = text.parse().ok();
    ip.filter(|ip| !ip.is_unspecified() && !ip.is_multicast()).ok_or_else(|| de::Error::custom(wrong()))
}

/// A node.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NodePath {
    /// Node ID
    pub node: NodeId,
}

/// A file of the documentation.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DocsPath {
    /// Its name, or nothing.
    pub path: Vec<String>,
}

/// A file of the status page.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct FilePath {
    /// Its name.
    pub file: String,
}

/// At which ports a node is reached.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UpgradeNodeQuery {
    /// Database port; not used for a witness
    pub db_port: Port,
    /// Rest api port
    pub api_port: Port,
}

/// Whether to wait for another answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReadonlyQuery {
    /// How long to wait for another answer than that of `if-none-match`; default 0s, at most 5m.
    pub wait: Option<Duration>,
}

/// Which answer the caller has already.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ReadonlyHeaders {
    /// The `etag` of an earlier answer. If that is still the same, the answer is 304 without a body.
    pub if_none_match: Option<String>,
}
