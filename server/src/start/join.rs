//! How a node becomes part of a cluster: it asks to be added, and to be enrolled once it is fit. To be enrolled is to get
//! the role that it was added for; until then it is a listener. The API calls that an upgrade.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use qluster_consensus::model::{ClusterInfo, Error, ErrorCode, Leader, Node, NodeRole, Port};
use qluster_consensus::node::cluster::Cluster;
use qluster_consensus::protocol::database::{Database, DatabaseRole};
use qluster_consensus::raft::store::Identity;
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

use crate::database::Postgres;
use crate::report;
use crate::security::Security;
use crate::start::settings::Settings;

/// How long a node tries to be added. Elections take much less.
const JOIN_DEADLINE: Duration = Duration::from_secs(60);
/// The time between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// The time limit of a single request. A change is confirmed or given up before that.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// Why a node did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The given address is not one of a node.
    #[error("expected the address of a node of the cluster such as `http://10.0.0.1:8080`, got `{given}`: {reason}")]
    Address {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// A node refused.
    #[error("{attempted}: {error}")]
    Refused {
        /// Which request, to which node.
        attempted: String,
        /// The answer.
        error: Error,
    },
    /// Nobody answered.
    #[error("{attempted}")]
    Request {
        /// Which request, to which node.
        attempted: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
}

impl JoinError {
    /// Whether another attempt would fail as well: somebody has to change something first.
    pub fn is_hopeless(&self) -> bool {
        match self {
            Self::Address { .. } => true,
            Self::Refused { error, .. } => {
                matches!(error.error_code, ErrorCode::BadRequest | ErrorCode::Unauthenticated | ErrorCode::Forbidden)
            }
            Self::Client(_) | Self::Request { .. } => false,
        }
    }
}

/// A client of the nodes' API, which follows their answers to the leader.
struct Asker {
    http: reqwest::Client,
    url: Url,
    token: Option<SecretString>,
}

impl Asker {
    fn new(url: Url, security: &Security) -> Result<Self, JoinError> {
        let mut builder = reqwest::Client::builder().timeout(REQUEST_DEADLINE).no_proxy();
        // Nodes do not redirect. Whoever does is not a node, and must not get the token passed on.
        builder = builder.redirect(reqwest::redirect::Policy::none());
        if let Some(tls) = &security.keys().tls {
            builder = builder.tls_backend_preconfigured(tls.client.as_ref().clone());
        }
        let http = builder.build().map_err(JoinError::Client)?;
        Ok(Self { http, url, token: security.own_token() })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, JoinError> {
        let mut url = self.url.clone();
        url.set_path(path);
        let attempted = format!("cannot ask {method} {url}");
        let failed = |source| JoinError::Request { attempted: attempted.clone(), source };
        let mut request = self.http.request(method.clone(), url.clone()).query(query);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        let response = request.send().await.map_err(failed)?;
        if response.status().is_success() {
            return response.json().await.map_err(failed);
        }
        let error = response.json().await.map_err(failed)?;
        Err(JoinError::Refused { attempted: format!("{method} {url} was refused"), error })
    }

    /// Goes on with the leader that an answer names. Whether that is another node than before.
    fn follow(&mut self, error: &Error) -> bool {
        let Some(leader) = &error.leader else { return false };
        let address = SocketAddr::new(leader.ip, leader.api_port.get());
        let before = self.url.clone();
        // Neither can fail: a URL that has a host can have another one, and a port.
        let _ = self.url.set_ip_host(address.ip());
        let _ = self.url.set_port(Some(address.port()));
        self.url != before
    }
}

/// Reads the address of a node. Either all nodes of a cluster use TLS, or none.
///
/// # Errors
///
/// It is not such an address, or its scheme does not fit `tls`.
pub fn address(given: &str, tls: bool) -> Result<Url, JoinError> {
    let wrong = |reason: String| JoinError::Address { given: given.into(), reason };
    let url: Url = given.parse().map_err(|error| wrong(format!("{error}")))?;
    let reason = match (url.scheme(), url.host()) {
        ("http", Some(_)) if tls => "this node uses TLS, so the others do as well: give an https:// address",
        ("https", Some(_)) if !tls => "this node has no certificate: give --tls-cert, --tls-key and --tls-ca",
        ("http" | "https", Some(_)) => return Ok(url),
        _ => "it is not an http:// or https:// address with a host",
    };
    Err(wrong(reason.into()))
}

/// Asks the cluster of the node at `url` to add this node, and returns its identity. An attempt that was not confirmed is
/// repeated: a listener that was never enrolled is replaced by the next one from the same address.
///
/// # Errors
///
/// The cluster refuses the node, or has not added it in time.
pub async fn ask_to_be_added(
    url: Url,
    settings: &Settings,
    role: NodeRole,
    security: &Security,
) -> Result<Identity, JoinError> {
    let mut asker = Asker::new(url, security)?;
    let query =
        [("ip", settings.ip.to_string()), ("role", role.to_string()), ("api-port", settings.api_port.to_string())];
    let deadline = tokio::time::Instant::now() + JOIN_DEADLINE;
    let node: Node = loop {
        let error = match asker.ask(Method::POST, "/node", &query).await {
            Ok(node) => break node,
            Err(error) => error,
        };
        let again = match &error {
            JoinError::Refused { error, .. } => {
                asker.follow(error)
                    || matches!(
                        error.error_code,
                        ErrorCode::NoLeader
                            | ErrorCode::Superseded
                            | ErrorCode::Unconfirmed
                            | ErrorCode::Unavailable
                            | ErrorCode::TooManyRequests
                    )
            }
            JoinError::Request { .. } => true,
            JoinError::Address { .. } | JoinError::Client(_) => false,
        };
        if !again || tokio::time::Instant::now() >= deadline {
            return Err(error);
        }
        tracing::info!(reason = report::chain(&error), "this node is not added yet");
        tokio::time::sleep(RETRY_INTERVAL).await;
    };
    let info: ClusterInfo = asker.ask(Method::GET, "/info", &[]).await?;
    Ok(Identity { cluster: info.cluster_id, node: node.id })
}

/// Asks the leader to enroll this node until that is done. Returns at once if the node has its role already.
pub async fn ask_to_be_enrolled(
    cluster: Cluster,
    database: Option<Arc<Postgres>>,
    db_port: Option<Port>,
    api_port: Port,
    security: Arc<Security>,
) {
    let me = cluster.identity().node;
    let mut logged = String::new();
    loop {
        let own = cluster.map().ok().and_then(|map| map.nodes.get(&me).cloned());
        if let Some(node) = own.as_ref().filter(|node| node.role == node.upgrade_to) {
            // The request may have had no answer in time, and was logged as failed then.
            if !logged.is_empty() {
                tracing::info!(%me, role = %node.role, "this node was enrolled");
            }
            return;
        }
        // While the database is cloned, which may take hours, the answer would be no. A cluster without databases has none
        // to stream from.
        let streams = |leader: &Leader| {
            leader.db_port.is_none() || database.as_ref().is_none_or(|database| database.status().borrow().streaming)
        };
        if let (Some(_), Some(leader)) = (own, cluster.leader().ok().filter(streams)) {
            let address = SocketAddr::new(leader.ip, leader.api_port.get());
            // The API asks for a port even of a witness, which has no database: it is not used.
            let db_port = db_port.unwrap_or(api_port);
            let query = [("db-port", db_port.to_string()), ("api-port", api_port.to_string())];
            let asked = async {
                let url = address_of(address, security.has_tls())?;
                Asker::new(url, &security)?.ask::<Node>(Method::PATCH, &format!("/node/{me}"), &query).await
            };
            match asked.await {
                Ok(node) => {
                    tracing::info!(%me, role = %node.role, "this node was enrolled");
                    return;
                }
                Err(error) => {
                    let reason = report::chain(&error);
                    if reason != logged {
                        tracing::info!(reason, "this node is not enrolled yet");
                        logged = reason;
                    }
                }
            }
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

fn address_of(address: SocketAddr, tls: bool) -> Result<Url, JoinError> {
    let scheme = if tls { "https" } else { "http" };
    self::address(&format!("{scheme}://{address}"), tls)
}

/// Shows the progress of the clone of the database, until it is done: as a bar at a terminal, otherwise in the log.
pub async fn show_progress(database: Arc<Postgres>) {
    let mut status = database.status();
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("cloning the database [{bar:40}] {percent} % {elapsed}") {
            bar.set_style(style);
        }
        bar
    });
    let mut logged = 0;
    loop {
        let (role, progress) = {
            let status = status.borrow_and_update();
            (status.role, status.progress)
        };
        if let Some(percent) = progress {
            match &bar {
                Some(bar) => bar.set_position(u64::from(percent)),
                None if percent >= logged + 10 => {
                    logged = percent;
                    tracing::info!("cloning the database: {percent} %");
                }
                None => {}
            }
        }
        if matches!(role, DatabaseRole::Standby | DatabaseRole::Primary) || status.changed().await.is_err() {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_an_address_is_refused_with_an_example() {
        for (given, tls) in [
            ("", false),
            ("10.0.0.1:8080", false),
            ("https://10.0.0.1:8080", false),
            ("http://10.0.0.1:8080", true),
            ("http://", false),
            ("ftp://host", false),
        ] {
            let error = address(given, tls).unwrap_err().to_string();
            assert!(error.contains("such as `http://10.0.0.1:8080`"), "{given}: {error}");
        }
        assert!(address("http://10.0.0.1:8080", false).is_ok());
        assert!(address("https://10.0.0.1:8080", true).is_ok());
    }
}
