//! The HTTP server under the API: its listener, its TLS, and what of its log is passed on.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use dropshot::{ConfigDropshot, ConfigTls, HandlerTaskMode, ServerBuilder};
use slog::Drain;

use super::DaemonError;
use crate::api::context::Shared;
use crate::api::routes::routes;
use crate::metrics::Counted;
use crate::os::lock::lock;
use crate::report;
use crate::start::settings::Settings;

/// The size limit of a request's body, in bytes. Operations that take larger ones say so themselves.
const REQUEST_BODY_LIMIT_BYTES: usize = 1024;

/// At most one failed TLS handshake is logged in this time.
const TLS_ERROR_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Paths that are served and are not in the API's description.
const UNPUBLISHED_PATHS: [&str; 5] = ["/", "/docs", "/docs/{path}", "/page/{file}", "/peer"];

/// A running HTTP server.
pub(super) struct HttpServer(dropshot::HttpServer<Shared>);

/// Serves the API at the address in `settings`.
pub(super) fn serve(settings: &Settings, context: Shared) -> Result<HttpServer, DaemonError> {
    let address = settings.api_address();
    let failed = |reason: String| DaemonError::Serve { address, reason };
    let api = routes().map_err(|error| failed(report::chain(&error)))?;
    let config = ConfigDropshot {
        bind_address: address,
        default_request_body_max_bytes: REQUEST_BODY_LIMIT_BYTES,
        // A change that was begun is finished, whether or not the caller waits for it.
        default_handler_task_mode: HandlerTaskMode::Detached,
        ..ConfigDropshot::default()
    };
    let version = semver::Version::new(0, 0, 0);
    let paths = api.openapi("", version).json().unwrap_or_default();
    let paths = paths["paths"].as_object().into_iter().flat_map(|paths| paths.keys().cloned());
    let paths = paths.chain(UNPUBLISHED_PATHS.map(String::from)).collect();
    let drain = tracing_slog::TracingSlogDrain.filter(is_passed_on());
    let drain = Counted::new(drain, context.metrics.clone(), paths);
    let log = slog::Logger::root(slog::Fuse(drain), slog::o!());
    let tls = context.security.keys().tls.as_ref().map(|tls| ConfigTls::Dynamic(tls.server.clone()));
    let started = ServerBuilder::new(api, context, log).config(config).tls(tls).start();
    started.map(HttpServer).map_err(|error| failed(report::chain(&error)))
}

impl HttpServer {
    /// Waits until the server has ended although nobody closed it, and returns why.
    pub(super) async fn ended(&self) -> String {
        self.0.wait_for_shutdown().await.err().unwrap_or_else(|| "its server has ended".into())
    }

    /// Serves with another certificate from now on.
    pub(super) async fn refresh_tls(&self, tls: rustls::ServerConfig) {
        if let Err(reason) = self.0.refresh_tls(&ConfigTls::Dynamic(tls)).await {
            tracing::error!(reason, "the new certificate is not in use");
        }
    }

    /// Takes no more connections, and waits for the requests that are being answered.
    pub(super) async fn close(self) -> Result<(), String> {
        self.0.close().await
    }
}

/// Which records of the HTTP server's log are passed on. Not cancelled requests: long polls end so all the time. And not
/// every failed TLS handshake: a client may try many times a second.
fn is_passed_on() -> impl Fn(&slog::Record) -> bool {
    let last: Mutex<Option<Instant>> = Mutex::default();
    move |record| {
        let text = record.msg().to_string();
        if text.contains("cancelled") {
            return false;
        }
        if record.level() != slog::Level::Warning || !text.starts_with("tls accept err") {
            return true;
        }
        let (mut last, now) = (lock(&last), Instant::now());
        let due = last.is_none_or(|last| now.duration_since(last) >= TLS_ERROR_LOG_INTERVAL);
        if due {
            *last = Some(now);
        }
        due
    }
}
