//! The first parameter of each operation: whether the caller may use it.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;

use dropshot::{
    ApiEndpointBodyContentType, ClientErrorStatusCode, ExtensionMode, ExtractorMetadata, HttpError, RequestContext,
    ServerContext, SharedExtractor,
};

use crate::api::context::Context;
use crate::security::Refusal;

/// Proof that the caller may use the operation. It is the first parameter of each operation, so that nothing else of the
/// request is read before.
#[derive(Debug)]
pub struct Allowed(());

impl Allowed {
    fn check<C: ServerContext>(rqctx: &RequestContext<C>) -> Result<Self, HttpError> {
        let context: &dyn Any = rqctx.context();
        let context: &Arc<Context> = context
            .downcast_ref()
            .ok_or_else(|| HttpError::for_internal_error("credentials cannot be checked in this context".into()))?;
        let request = &rqctx.request;
        let allowed =
            context.security.allow(&rqctx.endpoint.operation_id, request.headers(), request.remote_addr().ip());
        allowed.map(|()| Self(())).map_err(HttpError::from)
    }
}

impl From<Refusal> for HttpError {
    fn from(refusal: Refusal) -> Self {
        let refused = |status, text: &str| HttpError::for_client_error(None, status, text.into());
        match refusal {
            Refusal::Unauthenticated(reason) => refused(ClientErrorStatusCode::UNAUTHORIZED, reason),
            Refusal::Forbidden => {
                refused(ClientErrorStatusCode::FORBIDDEN, "a read token changes nothing: this needs an admin token")
            }
            Refusal::Foreign => refused(
                ClientErrorStatusCode::FORBIDDEN,
                "a page of another site asked for this: without tokens, only this node's own page may do so, at the node's \
                 address (expected `Origin` to be that address)",
            ),
            Refusal::TooMany => refused(
                ClientErrorStatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens came from this address: try again in a second",
            ),
            Refusal::Unlisted => {
                HttpError::for_internal_error("the table of what operations need lacks this one".into())
            }
        }
    }
}

impl SharedExtractor for Allowed {
    // What `async_trait` makes of an `async fn`.
    fn from_request<'a, 'f, C>(
        rqctx: &'a RequestContext<C>,
    ) -> Pin<Box<dyn Future<Output = Result<Self, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        C: ServerContext + 'f,
        Self: 'f,
    {
        Box::pin(std::future::ready(Self::check(rqctx)))
    }

    fn metadata(_: ApiEndpointBodyContentType) -> ExtractorMetadata {
        ExtractorMetadata { extension_mode: ExtensionMode::None, parameters: Vec::new() }
    }
}
