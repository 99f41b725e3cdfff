//! What all handlers do with a request: how long it may wait, who asks, and how its answer is made.

use std::time::Duration;

use dropshot::{Body, HttpResponseOk, RequestContext};
use http::Response;
use qluster_consensus::model::{self, Error, ErrorCode};
use tracing::Instrument;

use super::context::Shared;
use super::status::ApiError;
use crate::report;

/// A request to the API.
pub(super) type Ctx = RequestContext<Shared>;

/// How long a request for a newer map waits if it does not say how long.
pub(super) const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// The longest that a long poll may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// An answer in JSON.
pub(super) fn answer<T>(ctx: &Ctx, result: Result<T, ApiError>) -> Result<HttpResponseOk<T>, ApiError>
where
    T: schemars::JsonSchema + serde::Serialize + Send + Sync + 'static,
{
    result.map(HttpResponseOk).map_err(|error| error.with_request_id(&ctx.request_id))
}

/// An answer in text, or of any other type.
pub(super) fn text(ctx: &Ctx, kind: &str, text: String) -> Result<Response<Body>, ApiError> {
    let response = Response::builder().header(http::header::CONTENT_TYPE, kind).body(text.into());
    response.map_err(|error| internal(ctx, &error))
}

/// Makes a change. What is logged meanwhile names the request, and the outcome is logged.
pub(super) async fn change<T>(
    ctx: &Ctx,
    doing: impl Future<Output = Result<T, ApiError>>,
) -> Result<HttpResponseOk<T>, ApiError>
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

/// The error of an answer that could not be made: a defect, which is logged.
pub(super) fn internal(ctx: &Ctx, error: &dyn std::error::Error) -> ApiError {
    let reason = report::chain(error);
    tracing::error!(request = ctx.request_id, reason, "an answer could not be made");
    ApiError::new(ErrorCode::Internal, reason).with_request_id(&ctx.request_id)
}

/// How long a request waits for something newer than `after`.
///
/// # Errors
///
/// [`ErrorCode::BadRequest`] if there is nothing to wait for, or the wait is too long.
pub(super) fn wait_after<T>(
    after: Option<T>,
    wait: Option<model::Duration>,
    default: Duration,
) -> Result<Duration, ApiError> {
    if wait.is_some() && after.is_none() {
        return Err(ApiError::new(ErrorCode::BadRequest, "wait is given without after-index"));
    }
    limited(wait, default)
}

/// How long a request waits.
///
/// # Errors
///
/// [`ErrorCode::BadRequest`] if the wait is too long.
pub(super) fn limited(wait: Option<model::Duration>, default: Duration) -> Result<Duration, ApiError> {
    let wait = wait.map_or(default, |wait| wait.get());
    if wait > LONGEST_WAIT {
        let longest = humantime::format_duration(LONGEST_WAIT);
        let reason = format!("wait is {}, expected at most {longest}", humantime::format_duration(wait));
        return Err(ApiError::new(ErrorCode::BadRequest, reason));
    }
    Ok(wait)
}

/// Who asks, as events name them.
pub(super) fn actor(ctx: &Ctx) -> String {
    format!("operator at {}", ctx.request.remote_addr().ip())
}
