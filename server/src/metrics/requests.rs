//! Counts requests to the API when dropshot logs that they were answered. dropshot has no other place that sees all
//! requests, including those that it refuses itself.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use slog::{Drain, KV, Key, OwnedKVList, Record, Serializer};

use super::Metrics;

/// What dropshot logs of a request that was answered. A test fails if it logs something else.
const ANSWERED: &str = "request completed";

/// Paths that end in a variable, and its name in the description.
const PATTERNS: [(&str, &str); 4] =
    [("/node/", "{node}"), ("/node-down/", "{node}"), ("/docs/", "{path}"), ("/page/", "{file}")];

/// A drain for dropshot's log that counts the requests in it, and passes everything on.
pub struct Counted<D> {
    drain: D,
    /// Counters are whole after a panic, even if their locks are poisoned.
    metrics: AssertUnwindSafe<Arc<Metrics>>,
    /// The paths that are served. A caller may ask for any other.
    paths: Vec<String>,
}

impl<D> Counted<D> {
    /// Counts in `metrics` the requests to `paths` that are logged to `drain`.
    pub fn new(drain: D, metrics: Arc<Metrics>, paths: Vec<String>) -> Self {
        Self { drain, metrics: AssertUnwindSafe(metrics), paths }
    }

    fn count(&self, request: &Request) {
        let path = pattern(&request.path);
        let path = if self.paths.contains(&path) { path.as_str() } else { "other" };
        // A client may send any method.
        let known = ["GET", "HEAD", "OPTIONS", "POST", "PATCH", "DELETE", "PUT"];
        let method = known.into_iter().find(|known| *known == request.method).unwrap_or("other");
        self.metrics.requests.with_label_values(&[method, path, request.code.as_str()]).inc();
        let seconds = request.microseconds as f64 / 1e6;
        self.metrics.request_times.with_label_values(&[method, path]).observe(seconds);
    }
}

/// The path as the description has it.
fn pattern(path: &str) -> String {
    let fits = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && !rest.contains('/'));
    let known = PATTERNS.into_iter().find(|(prefix, _)| fits(prefix));
    known.map_or_else(|| path.to_owned(), |(prefix, variable)| format!("{prefix}{variable}"))
}

impl<D: Drain> Drain for Counted<D> {
    type Ok = D::Ok;
    type Err = D::Err;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<D::Ok, D::Err> {
        if record.msg().as_str() == Some(ANSWERED) {
            let mut request = Request::default();
            // It fails only if a value does, and these do not.
            let _ = record.kv().serialize(record, &mut request);
            let _ = values.serialize(record, &mut request);
            self.count(&request);
        }
        self.drain.log(record, values)
    }
}

/// A request, as the log has it.
#[derive(Default)]
struct Request {
    method: String,
    path: String,
    code: String,
    microseconds: u128,
}

impl Serializer for Request {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        // The key is text or a type of its own, depending on a feature of slog that other crates may enable.
        match AsRef::<str>::as_ref(&key) {
            "method" => self.method = value.to_string(),
            // Without the query, which may hold a secret of the caller.
            "uri" => self.path = value.to_string().split('?').next().unwrap_or_default().to_owned(),
            "response_code" => self.code = value.to_string(),
            "latency_us" => self.microseconds = value.to_string().parse().unwrap_or_default(),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_patterns_and_what_nobody_serves_is_other() {
        let metrics = Metrics::new().unwrap();
        let paths = ["/map", "/node/{node}", "/node-down/{node}"].map(String::from).to_vec();
        let drain = Counted::new(slog::Discard, metrics.clone(), paths);
        let log = slog::Logger::root(drain, slog::o!());
        for (method, uri, code) in [
            ("GET", "/map?after-index=3", 200_u16),
            ("DELETE", "/node/17", 412),
            ("POST", "/node-down/3", 200),
            ("GET", "/node/1/2", 404),
            ("BREW", "/coffee", 404),
        ] {
            let log = log.new(slog::o!("method" => method, "uri" => uri));
            slog::info!(log, "request completed"; "response_code" => code, "latency_us" => 1500_u128);
            slog::info!(log, "something else"; "response_code" => code);
        }
        let text = metrics.text(None).unwrap();
        for line in [
            r#"qluster_api_requests_total{code="200",method="GET",path="/map"} 1"#,
            r#"qluster_api_requests_total{code="412",method="DELETE",path="/node/{node}"} 1"#,
            r#"qluster_api_requests_total{code="200",method="POST",path="/node-down/{node}"} 1"#,
            r#"qluster_api_requests_total{code="404",method="GET",path="other"} 1"#,
            r#"qluster_api_requests_total{code="404",method="other",path="other"} 1"#,
            r#"qluster_api_request_seconds_sum{method="GET",path="/map"} 0.0015"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
