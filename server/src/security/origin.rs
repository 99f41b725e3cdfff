//! Whether a request comes from another site's page, in a browser that can reach this node.

use http::HeaderMap;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;

/// Whether a page of another site sends this request. Browsers name the site of the page in `Origin` (RFC 6454, section 7.3);
/// other programs leave it out.
///
/// That the site has the name that was asked for is not enough: a name can be pointed at this node after the page was
/// loaded (DNS rebinding), so the site has to be an address, or `localhost`.
pub(super) fn is_foreign(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return false };
    let text = |value: &http::HeaderValue| value.to_str().ok().map(str::to_ascii_lowercase);
    let site = text(origin).and_then(|origin| Some(origin.split_once("://")?.1.parse::<Authority>().ok()));
    let asked = headers.get(HOST).and_then(text);
    let is_own = match (site.flatten(), asked) {
        (Some(site), Some(asked)) => site.as_str() == asked && is_local(site.host()),
        _ => false,
    };
    !is_own || origins.next().is_some()
}

fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_foreign_if_its_page_is_of_another_site_or_of_a_name() {
        let host = "127.0.0.1:8080";
        for (host, origins, foreign) in [
            (host, &[][..], false),
            (host, &["http://127.0.0.1:8080"], false),
            ("[::1]:8080", &["http://[::1]:8080"], false),
            ("localhost:8080", &["http://LOCALHOST:8080"], false),
            (host, &["http://127.0.0.1:3000"], true),
            (host, &["https://example.org"], true),
            (host, &["null"], true),
            (host, &[""], true),
            (host, &["http://"], true),
            (host, &["http://127.0.0.1:8080", "https://example.org"], true),
            ("rebound.example:8080", &["http://rebound.example:8080"], true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            for origin in origins {
                headers.append(ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_foreign(&headers), foreign, "{origins:?} at {host}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, "http://127.0.0.1:8080".parse().unwrap());
        assert!(is_foreign(&headers), "without a host");
    }
}
