//! The body of a request, as JSON and nothing else.

use std::pin::Pin;
use std::time::Duration;

use dropshot::{
    ApiEndpointBodyContentType, Body, ExclusiveExtractor, ExtractorMetadata, HttpError, RequestContext, ServerContext,
    TypedBody, UntypedBody,
};
use http::Request;
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, IgnoredAny};

/// The time limit for the arrival of a body. dropshot would wait for ever.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// A [`TypedBody`] that nothing follows. dropshot does not read past the end of the value: if a body had two values, the
/// second would be lost.
pub struct WholeBody<T>(T);

impl<T: JsonSchema + DeserializeOwned + Send + Sync + 'static> WholeBody<T> {
    /// What was sent.
    pub fn into_inner(self) -> T {
        self.0
    }

    async fn read<C: ServerContext>(rqctx: &RequestContext<C>, request: Request<Body>) -> Result<Self, HttpError> {
        let (parts, body) = request.into_parts();
        let whole = UntypedBody::from_request(rqctx, Request::from_parts(parts.clone(), body));
        let late = |_| HttpError::for_bad_request(None, format!("the body did not come within {BODY_DEADLINE:?}"));
        let whole = tokio::time::timeout(BODY_DEADLINE, whole).await.map_err(late)??;
        let again = Request::from_parts(parts, Body::from(whole.as_bytes().to_vec()));
        let value = TypedBody::from_request(rqctx, again).await?.into_inner();
        serde_json::from_slice::<IgnoredAny>(whole.as_bytes()).map_err(|error| {
            HttpError::for_bad_request(None, format!("unable to parse JSON body: expected one value: {error}"))
        })?;
        Ok(Self(value))
    }
}

impl<T: JsonSchema + DeserializeOwned + Send + Sync + 'static> ExclusiveExtractor for WholeBody<T> {
    // What `async_trait` makes of an `async fn`.
    fn from_request<'a, 'f, C>(
        rqctx: &'a RequestContext<C>,
        request: Request<Body>,
    ) -> Pin<Box<dyn Future<Output = Result<Self, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        C: ServerContext + 'f,
        Self: 'f,
    {
        Box::pin(Self::read(rqctx, request))
    }

    fn metadata(content_type: ApiEndpointBodyContentType) -> ExtractorMetadata {
        TypedBody::<T>::metadata(content_type)
    }
}
