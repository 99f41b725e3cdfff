//! Tags of the list of statements: a caller says with one which list it has.

use dropshot::{ApiEndpointResponse, Body, HttpError, HttpResponse, HttpResponseHeaders, HttpResponseOk};
use http::header::{CONTENT_TYPE, ETAG};
use http::{Response, StatusCode};
use qluster_consensus::model::ReadonlyStatements;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

/// Makes the tags of a cluster's lists. A tag consists of the cluster's id, since the generations of another cluster mean
/// something else, and the generation.
pub(crate) struct Tag(String);

/// An answer with its tag: the list, or 304 if the caller has it.
pub struct Tagged(Response<Body>);

/// Identifies a version of the answer.
#[derive(Serialize, JsonSchema)]
struct Described {
    /// Changes whenever the answer does.
    etag: String,
}

/// Why an answer could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the statements cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the answer cannot be made an HTTP response")]
    Http(#[from] http::Error),
}

impl Tag {
    pub(crate) fn of(cluster: Uuid) -> Self {
        Self(cluster.simple().to_string().chars().take(8).collect())
    }

    /// The tag of a generation.
    pub(crate) fn text(&self, generation: u64) -> String {
        format!("\"{}-{generation}\"", self.0)
    }

    /// The newest generation among the tags of this cluster in a header; None if there is none. A proxy that compressed the
    /// answer may have made the tag a weak one.
    pub(crate) fn generation(&self, header: &str) -> Option<u64> {
        let tags = header.split(',').map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'));
        tags.filter_map(|tag| tag.strip_prefix(&self.0)?.strip_prefix('-')?.parse().ok()).max()
    }
}

impl Tagged {
    /// The statements; or without them, that the caller has those of the tag.
    pub(crate) fn new(etag: String, statements: Option<&ReadonlyStatements>) -> Result<Self, Error> {
        let response = Response::builder().header(ETAG, etag);
        Ok(Self(match statements {
            Some(statements) => {
                let json = serde_json::to_vec(statements)?;
                response.header(CONTENT_TYPE, "application/json").body(json.into())?
            }
            None => response.status(StatusCode::NOT_MODIFIED).body(Body::empty())?,
        }))
    }
}

impl HttpResponse for Tagged {
    fn to_result(self) -> Result<Response<Body>, HttpError> {
        Ok(self.0)
    }

    fn response_metadata() -> ApiEndpointResponse {
        HttpResponseHeaders::<HttpResponseOk<ReadonlyStatements>, Described>::response_metadata()
    }

    fn status_code(&self) -> StatusCode {
        self.0.status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_back_and_one_of_another_cluster_does_not_count() {
        let (ours, other) = (Tag::of(Uuid::from_u128(7 << 100)), Tag::of(Uuid::from_u128(8 << 100)));
        let tag = ours.text(12);
        assert_eq!(ours.generation(&tag), Some(12));
        assert_eq!(ours.generation(&format!("\"x\", W/{tag}")), Some(12));
        for (tags, header) in [(&other, tag.as_str()), (&ours, "*"), (&ours, ""), (&ours, "\"-1\"")] {
            assert_eq!(tags.generation(header), None, "{header}");
        }
    }
}
