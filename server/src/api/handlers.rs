//! The operations of the API, one short function each: what is asked of the node, and what its errors mean here.

use std::time::Duration;

use dropshot::{Body, Header, HttpResponseOk, Path, Query, WebsocketChannelResult, WebsocketConnection};
use http::Response;
use qluster_consensus::model::{
    ClusterInfo, ClusterMap, ClusterStatus, Config, ConfigUpdate, ErrorCode, Event, Leader, Node, NodeStatus,
};
use qluster_consensus::node::cluster::ClusterError;

use super::answer::{Ctx, DEFAULT_WAIT, actor, answer, change, internal, limited, text, wait_after};
use super::body::WholeBody;
use super::check::Check;
use super::context::Shared;
use super::docs;
use super::etag::Tagged;
use super::status::ApiError;
use super::{
    AddNodeQuery, Allowed, DocsPath, EVENT_LIMIT, EventsQuery, FilePath, LagQuery, NewLeaderQuery, NodePath,
    QlusterApi, ReadonlyHeaders, ReadonlyQuery, UpgradeNodeQuery, WaitQuery,
};
use crate::database::DbConfig;
use crate::metrics;
use crate::page;
use crate::peer;
use crate::report;
use crate::site::Site;
use crate::tasks::logged;

/// Why a node is down that somebody declared down.
const DECLARED_DOWN: &str = "declared down: its database has problems";

/// The API over a [`Context`](crate::api::context::Context).
pub enum Api {}

impl QlusterApi for Api {
    type Context = Shared;

    async fn is_leader(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<Leader>, ApiError> {
        answer(&ctx, ctx.context().cluster().and_then(|cluster| Ok(cluster.is_leader()?)))
    }

    async fn map(ctx: Ctx, _: Allowed, query: Query<WaitQuery>) -> Result<HttpResponseOk<ClusterMap>, ApiError> {
        let WaitQuery { after_index, wait } = query.into_inner();
        let map = async {
            let cluster = ctx.context().cluster()?;
            let wait = wait_after(after_index, wait, DEFAULT_WAIT)?;
            match after_index {
                None => Ok(cluster.map()?),
                Some(after) => Ok(cluster.map_after(after, wait).await?),
            }
        };
        answer(&ctx, map.await)
    }

    async fn status(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<ClusterStatus>, ApiError> {
        answer(&ctx, ctx.context().cluster().and_then(|cluster| Ok(cluster.status()?)))
    }

    async fn info(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<ClusterInfo>, ApiError> {
        let told = async { Ok(ctx.context().cluster()?.info().await?) };
        answer(&ctx, told.await)
    }

    async fn config_get(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<Config>, ApiError> {
        answer(&ctx, ctx.context().cluster().and_then(|cluster| Ok(cluster.config()?)))
    }

    async fn config_post(
        ctx: Ctx,
        _: Allowed,
        body: WholeBody<ConfigUpdate>,
    ) -> Result<HttpResponseOk<Config>, ApiError> {
        let told = async { Ok(ctx.context().cluster()?.set_config(body.into_inner(), &actor(&ctx)).await?) };
        change(&ctx, told).await
    }

    async fn db_config(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<DbConfig>, ApiError> {
        answer(&ctx, ctx.context().database_settings().await)
    }

    async fn leader_get(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<Leader>, ApiError> {
        answer(&ctx, ctx.context().cluster().and_then(|cluster| Ok(cluster.leader()?)))
    }

    async fn leader_post(
        ctx: Ctx,
        _: Allowed,
        query: Query<NewLeaderQuery>,
    ) -> Result<HttpResponseOk<Leader>, ApiError> {
        let NewLeaderQuery { node, accept_data_loss } = query.into_inner();
        let switched = async {
            let (cluster, actor) = (ctx.context().cluster()?, actor(&ctx));
            let switched = match accept_data_loss {
                Some(true) => cluster.lead_with_loss(node, &actor).await,
                _ => cluster.switch_over(node, &actor).await,
            };
            switched.map_err(switchover_error)
        };
        change(&ctx, switched).await
    }

    async fn node_add(ctx: Ctx, _: Allowed, query: Query<AddNodeQuery>) -> Result<HttpResponseOk<Node>, ApiError> {
        let AddNodeQuery { ip, role, api_port } = query.into_inner();
        let api_port = api_port.unwrap_or(ctx.context().api_port);
        let added = async { Ok(ctx.context().cluster()?.add_node(ip, api_port, role, &actor(&ctx)).await?) };
        change(&ctx, added).await
    }

    async fn node_upgrade(
        ctx: Ctx,
        _: Allowed,
        path: Path<NodePath>,
        query: Query<UpgradeNodeQuery>,
    ) -> Result<HttpResponseOk<Node>, ApiError> {
        let (node, actor) = (path.into_inner().node, actor(&ctx));
        let UpgradeNodeQuery { db_port, api_port } = query.into_inner();
        let enrolled = async { Ok(ctx.context().cluster()?.upgrade_node(node, db_port, api_port, &actor).await?) };
        change(&ctx, enrolled).await
    }

    async fn node_remove(ctx: Ctx, _: Allowed, path: Path<NodePath>) -> Result<HttpResponseOk<Node>, ApiError> {
        let (node, actor) = (path.into_inner().node, actor(&ctx));
        let removed = async { Ok(ctx.context().cluster()?.remove_node(node, &actor).await?) };
        change(&ctx, removed).await
    }

    async fn node_down(ctx: Ctx, _: Allowed, path: Path<NodePath>) -> Result<HttpResponseOk<Node>, ApiError> {
        let (node, actor) = (path.into_inner().node, actor(&ctx));
        let down = async { Ok(ctx.context().cluster()?.down_node(node, DECLARED_DOWN, &actor).await?) };
        change(&ctx, down).await
    }

    async fn sql_readonly(
        ctx: Ctx,
        _: Allowed,
        query: Query<ReadonlyQuery>,
        headers: Header<ReadonlyHeaders>,
    ) -> Result<Tagged, ApiError> {
        let known = headers.into_inner().if_none_match.unwrap_or_default();
        let list = async {
            ctx.context().cluster()?;
            let wait = limited(query.into_inner().wait, Duration::ZERO)?;
            ctx.context().readonly(&known, wait).await
        };
        let (etag, statements) = list.await.map_err(|error| error.with_request_id(&ctx.request_id))?;
        Tagged::new(etag, statements.as_ref()).map_err(|error| internal(&ctx, &error))
    }

    async fn rpc(ctx: Ctx, _: Allowed) -> Result<Response<Body>, ApiError> {
        let context = ctx.context();
        let events = context.events(None, EVENT_LIMIT, Duration::ZERO).await;
        text(&ctx, "text/plain; charset=utf-8", report::text(&events, &context.peers.lines()))
    }

    async fn docs(ctx: Ctx, _: Allowed, path: Path<DocsPath>) -> Result<Response<Body>, ApiError> {
        let name = path.into_inner().path.join("/");
        let site = Site::get().map_err(|error| internal(&ctx, error))?;
        let file = docs::file(site, &name).map_err(|error| internal(&ctx, &error))?;
        let reason = || format!("the documentation has no page {name}: it begins at /docs");
        file.ok_or_else(|| ApiError::new(ErrorCode::NotFound, reason()).with_request_id(&ctx.request_id))
    }

    async fn events(ctx: Ctx, _: Allowed, query: Query<EventsQuery>) -> Result<HttpResponseOk<Vec<Event>>, ApiError> {
        let EventsQuery { after_index, limit, wait } = query.into_inner();
        let limit = limit.map_or(EVENT_LIMIT, |limit| limit.0);
        let events = async {
            let wait = wait_after(after_index, wait, Duration::ZERO)?;
            Ok(ctx.context().events(after_index, limit, wait).await)
        };
        answer(&ctx, events.await)
    }

    async fn primary(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<NodeStatus>, ApiError> {
        answer(&ctx, ctx.context().check(Check::Primary, None))
    }

    async fn replica(ctx: Ctx, _: Allowed, query: Query<LagQuery>) -> Result<HttpResponseOk<NodeStatus>, ApiError> {
        answer(&ctx, ctx.context().check(Check::Replica, query.into_inner().lag))
    }

    async fn read_only(ctx: Ctx, _: Allowed, query: Query<LagQuery>) -> Result<HttpResponseOk<NodeStatus>, ApiError> {
        answer(&ctx, ctx.context().check(Check::ReadOnly, query.into_inner().lag))
    }

    async fn health(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<NodeStatus>, ApiError> {
        answer(&ctx, ctx.context().check(Check::Health, None))
    }

    async fn liveness(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<Option<NodeStatus>>, ApiError> {
        answer(&ctx, ctx.context().alive())
    }

    async fn readiness(ctx: Ctx, _: Allowed, query: Query<LagQuery>) -> Result<HttpResponseOk<NodeStatus>, ApiError> {
        answer(&ctx, ctx.context().check(Check::Readiness, query.into_inner().lag))
    }

    async fn metrics(ctx: Ctx, _: Allowed) -> Result<Response<Body>, ApiError> {
        let context = ctx.context();
        let metrics = context.metrics.text(context.cluster.get()).map_err(|error| internal(&ctx, &error))?;
        text(&ctx, metrics::CONTENT_TYPE, metrics)
    }

    async fn page(ctx: Ctx, _: Allowed) -> Result<Response<Body>, ApiError> {
        page::file("").map_err(|error| internal(&ctx, &error))
    }

    async fn page_file(ctx: Ctx, _: Allowed, path: Path<FilePath>) -> Result<Response<Body>, ApiError> {
        page::file(&path.into_inner().file).map_err(|error| internal(&ctx, &error))
    }

    async fn peer(ctx: Ctx, upgraded: WebsocketConnection) -> WebsocketChannelResult {
        // Browsers say so if a page asks, of any site: nothing keeps a page from opening a WebSocket, and a node without
        // a secret cannot distinguish it from a peer by anything else.
        if ctx.request.headers().contains_key(http::header::ORIGIN) {
            return Err("pages may not speak to nodes as peers".into());
        }
        let (context, remote) = (ctx.context().clone(), ctx.request.remote_addr());
        let (identity, versions) = (context.identity(), context.versions.now());
        let (security, log) = (context.security.clone(), context.peers.clone());
        let serve = move |from, request| context.serve(from, request);
        let served = peer::accept(upgraded, remote, identity, versions, security, serve, log);
        // Whoever dialed notices the end of a connection, and dials again.
        logged(&format!("a connection of a peer at {remote}"), served).await.unwrap_or(Ok(()))
    }
}

/// A switchover has no code of its own for a node that does not lead, nor for an outcome that is not known.
fn switchover_error(error: ClusterError) -> ApiError {
    match error {
        ClusterError::NotLeader(leader) => {
            let reason = format!("only the leader hands over, and this node is not it: ask node {}", leader.id);
            ApiError::new(ErrorCode::PreconditionFailed, reason).with_leader(Some(*leader))
        }
        ClusterError::Superseded | ClusterError::Unconfirmed(_) => {
            ApiError::new(ErrorCode::NoLeader, report::chain(&error))
        }
        other => other.into(),
    }
}
