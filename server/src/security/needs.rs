//! What each operation needs of whoever asks for it: the one table, which the description is made from as well.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;

use dropshot::{
    ApiEndpointBodyContentType, ClientErrorStatusCode, ExtensionMode, ExtractorMetadata, HttpError, RequestContext,
    ServerContext, SharedExtractor,
};

use super::{Kind, Refusal};
use crate::handlers::Context;

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
/// fails; so does one whose method does not begin with [`Allowed`].
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

/// Proof that whoever asks may: the first parameter of each operation, so that nothing else of the request is looked at
/// before.
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
                "a page of another site asked for this: where there are no tokens, only this node's own page may, by the \
                 node's address (expected `Origin` to be that address)",
            ),
            Refusal::TooMany => refused(
                ClientErrorStatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens came from this address: try again in a second",
            ),
            Refusal::Unlisted => HttpError::for_internal_error("nobody said what this operation needs".into()),
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
