//! The operations of the API, one short function each: what is asked of the cluster, and what its errors mean here.

use std::time::Duration;

use dropshot::{
    Body, Header, HttpResponseOk, Path, Query, RequestContext, WebsocketChannelResult, WebsocketConnection,
};
use http::Response;
use qluster_consensus::model::{
    Bytes, ClusterInfo, ClusterMap, ClusterStatus, Config, ConfigUpdate, Error, ErrorCode, Event, Leader, Node,
    NodeStatus,
};
use qluster_consensus::node::cluster::{Cluster, ClusterError};
use tracing::Instrument;

use crate::api::Allowed;
use crate::api::body::WholeBody;
use crate::api::check::{self, Check};
use crate::api::context::Shared;
use crate::api::etag::{Tag, Tagged};
use crate::api::status::ApiError;
use crate::api::{
    AddNodeQuery, DocsPath, EVENTS, EventsQuery, FilePath, LagQuery, NewLeaderQuery, NodePath, QlusterApi,
    ReadonlyHeaders, ReadonlyQuery, UpgradeNodeQuery, WaitQuery,
};
use crate::database::DbConfig;
use crate::metrics::{self};
use crate::page;
use crate::peer::{self};
use crate::report;
use crate::site::{self, Site};

/// A long poll that does not say how long it waits, waits so long.
const WAIT: Duration = Duration::from_secs(30);
/// The longest that one may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// Why a node is down that somebody declared so.
const DECLARED_DOWN: &str = "declared down: its database has problems";

/// The API over a [`Context`](crate::api::context::Context).
pub enum Api {}

type Ctx = RequestContext<Shared>;

impl QlusterApi for Api {
    type Context = Shared;

    async fn is_leader(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<Leader>, ApiError> {
        answer(&ctx, cluster(&ctx).and_then(|cluster| Ok(cluster.is_leader()?)))
    }

    async fn map(ctx: Ctx, _: Allowed, query: Query<WaitQuery>) -> Result<HttpResponseOk<ClusterMap>, ApiError> {
        let WaitQuery { after_index, wait } = query.into_inner();
        let told = async {
            let cluster = cluster(&ctx)?;
            match (after_index, wait) {
                (None, None) => Ok(cluster.map()?),
                (None, Some(_)) => Err(ApiError::new(ErrorCode::BadRequest, "wait is given without after-index")),
                (Some(after), wait) => Ok(cluster.map_after(after, limited(wait.map(|wait| wait.get()))?).await?),
            }
        };
        answer(&ctx, told.await)
    }

    async fn status(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<ClusterStatus>, ApiError> {
        answer(&ctx, cluster(&ctx).and_then(|cluster| Ok(cluster.status()?)))
    }

    async fn info(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<ClusterInfo>, ApiError> {
        let told = async { Ok(cluster(&ctx)?.info().await?) };
        answer(&ctx, told.await)
    }

    async fn config_get(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<Config>, ApiError> {
        answer(&ctx, cluster(&ctx).and_then(|cluster| Ok(cluster.config()?)))
    }

    async fn config_post(
        ctx: Ctx,
        _: Allowed,
        body: WholeBody<ConfigUpdate>,
    ) -> Result<HttpResponseOk<Config>, ApiError> {
        let told = async { Ok(cluster(&ctx)?.set_config(body.into_inner(), &actor(&ctx)).await?) };
        change(&ctx, told).await
    }

    async fn db_config(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<DbConfig>, ApiError> {
        let told = async {
            cluster(&ctx)?;
            let none = || ApiError::new(ErrorCode::PreconditionFailed, "this node manages no database");
            let database = ctx.context().database.get().ok_or_else(none)?;
            database.settings().await.map_err(|error| {
                let reason = report::chain(&error);
                ApiError::new(ErrorCode::Unavailable, format!("the database of this node does not answer: {reason}"))
            })
        };
        answer(&ctx, told.await)
    }

    async fn leader_get(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<Leader>, ApiError> {
        answer(&ctx, cluster(&ctx).and_then(|cluster| Ok(cluster.leader()?)))
    }

    async fn leader_post(
        ctx: Ctx,
        _: Allowed,
        query: Query<NewLeaderQuery>,
    ) -> Result<HttpResponseOk<Leader>, ApiError> {
        let told = async {
            let NewLeaderQuery { node, accept_data_loss } = query.into_inner();
            let switched = match accept_data_loss {
                Some(true) => cluster(&ctx)?.lead_with_loss(node, &actor(&ctx)).await,
                _ => cluster(&ctx)?.switch_over(node, &actor(&ctx)).await,
            };
            switched.map_err(switchover_error)
        };
        change(&ctx, told).await
    }

    async fn node_add(ctx: Ctx, _: Allowed, query: Query<AddNodeQuery>) -> Result<HttpResponseOk<Node>, ApiError> {
        let AddNodeQuery { ip, role, api_port } = query.into_inner();
        let told = async {
            let api_port = api_port.unwrap_or(ctx.context().api_port);
            Ok(cluster(&ctx)?.add_node(ip, api_port, role, &actor(&ctx)).await?)
        };
        change(&ctx, told).await
    }

    async fn node_upgrade(
        ctx: Ctx,
        _: Allowed,
        path: Path<NodePath>,
        query: Query<UpgradeNodeQuery>,
    ) -> Result<HttpResponseOk<Node>, ApiError> {
        let UpgradeNodeQuery { db_port, api_port } = query.into_inner();
        let node = path.into_inner().node;
        let told = async { Ok(cluster(&ctx)?.upgrade_node(node, db_port, api_port, &actor(&ctx)).await?) };
        change(&ctx, told).await
    }

    async fn node_remove(ctx: Ctx, _: Allowed, path: Path<NodePath>) -> Result<HttpResponseOk<Node>, ApiError> {
        let told = async { Ok(cluster(&ctx)?.remove_node(path.into_inner().node, &actor(&ctx)).await?) };
        change(&ctx, told).await
    }

    async fn node_down(ctx: Ctx, _: Allowed, path: Path<NodePath>) -> Result<HttpResponseOk<Node>, ApiError> {
        let told = async { Ok(cluster(&ctx)?.down_node(path.into_inner().node, DECLARED_DOWN, &actor(&ctx)).await?) };
        change(&ctx, told).await
    }

    async fn sql_readonly(
        ctx: Ctx,
        _: Allowed,
        query: Query<ReadonlyQuery>,
        headers: Header<ReadonlyHeaders>,
    ) -> Result<Tagged, ApiError> {
        let known = headers.into_inner().if_none_match.unwrap_or_default();
        let wait = query.into_inner().wait;
        let told = async {
            let cluster = cluster(&ctx)?;
            let tag = Tag::of(cluster.identity().cluster);
            let known = tag.generation(&known);
            let wait = limited(Some(wait.map_or(Duration::ZERO, |wait| wait.get())))?;
            let (generation, statements) = match known {
                Some(known) if !wait.is_zero() => cluster.readonly_after(known, wait).await?,
                known => cluster.readonly(known)?,
            };
            Ok((tag.text(generation), statements))
        };
        let told: Result<_, ApiError> = told.await;
        let (etag, statements) = told.map_err(|error| error.with_request_id(&ctx.request_id))?;
        Tagged::new(etag, statements.as_ref()).map_err(|error| internal(&ctx, &error))
    }

    async fn rpc(ctx: Ctx, _: Allowed) -> Result<Response<Body>, ApiError> {
        let events = match ctx.context().cluster.get() {
            Some(cluster) => cluster.events(None, EVENTS as usize, Duration::ZERO).await,
            None => Vec::new(),
        };
        let text = report::text(&events, &ctx.context().peers.lines());
        Response::builder()
            .header(http::header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(text.into())
            .map_err(|error| internal(&ctx, &error))
    }

    async fn docs(ctx: Ctx, _: Allowed, path: Path<DocsPath>) -> Result<Response<Body>, ApiError> {
        let name = path.into_inner().path.join("/");
        let site = Site::get().map_err(|error| internal(&ctx, error))?;
        let response = match (name.as_str(), site.file(&name)) {
            // Links are relative to a file.
            ("", _) => Response::builder()
                .status(http::StatusCode::FOUND)
                .header(http::header::LOCATION, format!("/docs/{}", site::INDEX))
                .body(Body::empty()),
            (_, Some((text, kind))) => Response::builder()
                .header(http::header::CONTENT_TYPE, kind)
                .header(http::header::CONTENT_SECURITY_POLICY, "default-src 'self'")
                .body(text.to_owned().into()),
            (_, None) => {
                let reason = format!("the documentation has no page {name}: it begins at /docs");
                return Err(ApiError::new(ErrorCode::NotFound, reason).with_request_id(&ctx.request_id));
            }
        };
        response.map_err(|error| internal(&ctx, &error))
    }

    async fn events(ctx: Ctx, _: Allowed, query: Query<EventsQuery>) -> Result<HttpResponseOk<Vec<Event>>, ApiError> {
        let EventsQuery { after_index, limit, wait } = query.into_inner();
        let told = async {
            let limit = limit.map_or(EVENTS, |limit| limit.0);
            if wait.is_some() && after_index.is_none() {
                return Err(ApiError::new(ErrorCode::BadRequest, "wait is given without after-index"));
            }
            let wait = limited(Some(wait.map_or(Duration::ZERO, |wait| wait.get())))?;
            match ctx.context().cluster.get() {
                Some(cluster) => Ok(cluster.events(after_index, limit as usize, wait).await),
                None => Ok(Vec::new()),
            }
        };
        answer(&ctx, told.await)
    }

    async fn primary(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<NodeStatus>, ApiError> {
        checked(&ctx, Check::Primary, None)
    }

    async fn replica(ctx: Ctx, _: Allowed, query: Query<LagQuery>) -> Result<HttpResponseOk<NodeStatus>, ApiError> {
        checked(&ctx, Check::Replica, query.into_inner().lag)
    }

    async fn read_only(ctx: Ctx, _: Allowed, query: Query<LagQuery>) -> Result<HttpResponseOk<NodeStatus>, ApiError> {
        checked(&ctx, Check::ReadOnly, query.into_inner().lag)
    }

    async fn health(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<NodeStatus>, ApiError> {
        checked(&ctx, Check::Health, None)
    }

    async fn liveness(ctx: Ctx, _: Allowed) -> Result<HttpResponseOk<Option<NodeStatus>>, ApiError> {
        let alive = ctx.context().cluster.get().map_or(Ok(None), check::alive);
        answer(&ctx, alive)
    }

    async fn readiness(ctx: Ctx, _: Allowed, query: Query<LagQuery>) -> Result<HttpResponseOk<NodeStatus>, ApiError> {
        checked(&ctx, Check::Readiness, query.into_inner().lag)
    }

    async fn metrics(ctx: Ctx, _: Allowed) -> Result<Response<Body>, ApiError> {
        let context = ctx.context();
        let text = context.metrics.text(context.cluster.get()).map_err(|error| internal(&ctx, &error))?;
        Response::builder()
            .header(http::header::CONTENT_TYPE, metrics::CONTENT_TYPE)
            .body(text.into())
            .map_err(|error| internal(&ctx, &error))
    }

    async fn page(ctx: Ctx, _: Allowed) -> Result<Response<Body>, ApiError> {
        page::file("").map_err(|error| internal(&ctx, &error))
    }

    async fn page_file(ctx: Ctx, _: Allowed, path: Path<FilePath>) -> Result<Response<Body>, ApiError> {
        page::file(&path.into_inner().file).map_err(|error| internal(&ctx, &error))
    }

    async fn peer(ctx: Ctx, upgraded: WebsocketConnection) -> WebsocketChannelResult {
        // Browsers say so where a page asks, of any site: nothing keeps those from opening a WebSocket, and a node without
        // a secret cannot tell them from a peer by anything else.
        if ctx.request.headers().contains_key(http::header::ORIGIN) {
            return Err("pages may not speak to nodes as peers".into());
        }
        let context = ctx.context().clone();
        let identity = context.cluster.get().map(Cluster::identity);
        let remote = ctx.request.remote_addr();
        let (log, versions) = (context.peers.clone(), context.versions.now());
        let security = context.security.clone();
        let serve = move |from, request| match context.cluster.get() {
            Some(cluster) => cluster.serve(from, request),
            None => {
                let reason = "this node is not part of a cluster";
                Box::pin(std::future::ready(qluster_consensus::raft::transport::PeerResponse::Failed(reason.into())))
            }
        };
        peer::accept(upgraded, remote, identity, versions, security, serve, log).await
    }
}

fn cluster(ctx: &Ctx) -> Result<&Cluster, ApiError> {
    let context = ctx.context();
    context.cluster.get().ok_or_else(|| {
        if context.member.get() != Some(&false) {
            return ApiError::new(ErrorCode::Unavailable, "this node is starting");
        }
        let reason = "this node is not part of a cluster yet: bootstrap one, or join one";
        ApiError::new(ErrorCode::PreconditionFailed, reason)
    })
}

/// Makes a change. What is logged on the way names the request, and how it ended is logged.
async fn change<T>(ctx: &Ctx, doing: impl Future<Output = Result<T, ApiError>>) -> Result<HttpResponseOk<T>, ApiError>
where
    T: schemars::JsonSchema + serde::Serialize + Send + Sync + 'static,
{
    let (id, operation, from) = (&ctx.request_id, &ctx.endpoint.operation_id, ctx.request.remote_addr());
    let span = tracing::info_span!("request", id, operation, %from);
    let changed = doing.instrument(span.clone()).await;
    span.in_scope(|| match &changed {
        Ok(_) => tracing::info!("a change was made"),
        Err(error) => {
            let Error { error_code, message, .. } = error.body();
            tracing::info!(code = error_code.status(), reason = message, "a change was not made");
        }
    });
    answer(ctx, changed)
}

/// Answers a balancer's check. To it, a node that is not there yet is one that does not serve.
fn checked(ctx: &Ctx, check: Check, lag: Option<Bytes>) -> Result<HttpResponseOk<NodeStatus>, ApiError> {
    let unmet = |error: ApiError| check::unmet(error.body().message.clone());
    let checked = cluster(ctx).map_err(unmet).and_then(|cluster| check::answer(cluster, check, lag));
    answer(ctx, checked)
}

fn answer<T>(ctx: &Ctx, result: Result<T, ApiError>) -> Result<HttpResponseOk<T>, ApiError>
where
    T: schemars::JsonSchema + serde::Serialize + Send + Sync + 'static,
{
    result.map(HttpResponseOk).map_err(|error| error.with_request_id(&ctx.request_id))
}

fn internal(ctx: &Ctx, error: &dyn std::error::Error) -> ApiError {
    let reason = report::chain(error);
    tracing::error!(request = ctx.request_id, reason, "an answer could not be made");
    ApiError::new(ErrorCode::Internal, reason).with_request_id(&ctx.request_id)
}

fn limited(wait: Option<Duration>) -> Result<Duration, ApiError> {
    let wait = wait.unwrap_or(WAIT);
    if wait > LONGEST_WAIT {
        let longest = humantime::format_duration(LONGEST_WAIT);
        let reason = format!("wait is {}, expected at most {longest}", humantime::format_duration(wait));
        return Err(ApiError::new(ErrorCode::BadRequest, reason));
    }
    Ok(wait)
}

fn actor(ctx: &Ctx) -> String {
    format!("operator at {}", ctx.request.remote_addr().ip())
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
