//! The documentation, as it is served at `/docs`.

use dropshot::Body;
use http::{Response, StatusCode, header};

use crate::site::{INDEX, Site};

/// What a browser may load for a page: files of this node.
const POLICY: &str = "default-src 'self'";

/// The file of that name. The empty name leads to the first page; None if there is no such file.
pub(super) fn file(site: &Site, name: &str) -> Result<Option<Response<Body>>, http::Error> {
    if name.is_empty() {
        // Links in a page are relative to its file.
        let response = Response::builder().status(StatusCode::FOUND);
        return response.header(header::LOCATION, format!("/docs/{INDEX}")).body(Body::empty()).map(Some);
    }
    let Some((text, kind)) = site.file(name) else { return Ok(None) };
    let response = Response::builder().header(header::CONTENT_TYPE, kind);
    response.header(header::CONTENT_SECURITY_POLICY, POLICY).body(text.to_owned().into()).map(Some)
}
