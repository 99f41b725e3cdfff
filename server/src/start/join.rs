//! How a node becomes part of a cluster: it asks to be added, and for its upgrade once it is fit.

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

/// A node that wants to join tries for so long to be added: elections are over long before.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// A single request may take so long: a change is confirmed or given up before.
const REQUEST: Duration = Duration::from_secs(30);

/// Why a node did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The given address is none.
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
        /// What was asked, of whom.
        attempted: String,
        /// The answer.
        error: Error,
    },
    /// Nobody answered.
    #[error("{attempted}")]
    Request {
        /// What was asked, of whom.
        attempted: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
}

impl JoinError {
    /// Whether trying again does not help: somebody has to change something first.
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

/// Asks nodes over their API, and follows them to the leader.
struct Asker {
    http: reqwest::Client,
    url: Url,
    token: Option<SecretString>,
}

impl Asker {
    fn new(url: Url, security: &Security) -> Result<Self, JoinError> {
        let mut builder = reqwest::Client::builder().timeout(REQUEST).no_proxy();
        // Nodes do not redirect; whoever does is no node, and gets no token passed on.
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

    /// Goes on at the leader that an answer names. Whether that is another than before.
    fn follow(&mut self, error: &Error) -> bool {
        let Some(leader) = &error.leader else { return false };
        let address = SocketAddr::new(leader.ip, leader.api_port.get());
        let before = self.url.clone();
        // Neither fails for an address: a URL that has a host can have another, and a port.
        let _ = self.url.set_ip_host(address.ip());
        let _ = self.url.set_port(Some(address.port()));
        self.url != before
    }
}

/// Reads the address of a node. All nodes of a cluster speak TLS, or none.
pub fn address(given: &str, tls: bool) -> Result<Url, JoinError> {
    let wrong = |reason: String| JoinError::Address { given: given.into(), reason };
    let url: Url = given.parse().map_err(|error| wrong(format!("{error}")))?;
    let reason = match (url.scheme(), url.host()) {
        ("http", Some(_)) if tls => "this node speaks TLS, so the others do: give an https:// address",
        ("https", Some(_)) if !tls => "this node was given no certificate: --tls-cert, --tls-key and --tls-ca",
        ("http" | "https", Some(_)) => return Ok(url),
        _ => "it is no http:// or https:// address with a host",
    };
    Err(wrong(reason.into()))
}

/// Asks the cluster that the node at `url` belongs to for a place, and returns it. A try that was not confirmed is
/// repeated: a listener that never was upgraded is replaced by the next one from the same address.
pub async fn ask_for_a_place(
    url: Url,
    settings: &Settings,
    role: NodeRole,
    security: &Security,
) -> Result<Identity, JoinError> {
    let mut asker = Asker::new(url, security)?;
    let query =
        [("ip", settings.ip.to_string()), ("role", role.to_string()), ("api-port", settings.api_port.to_string())];
    let deadline = tokio::time::Instant::now() + PATIENCE;
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
        tracing::info!(reason = report::chain(&error), "not added yet");
        tokio::time::sleep(PAUSE).await;
    };
    let info: ClusterInfo = asker.ask(Method::GET, "/info", &[]).await?;
    Ok(Identity { cluster: info.cluster_id, node: node.id })
}

/// Asks the leader for the upgrade of this node until it has it, where it is still a listener that is to become more.
pub async fn ask_for_the_upgrade(
    cluster: Cluster,
    database: Option<Arc<Postgres>>,
    db_port: Option<Port>,
    api_port: Port,
    security: Arc<Security>,
) {
    let me = cluster.identity().node;
    let mut told = String::new();
    loop {
        let own = cluster.map().ok().and_then(|map| map.nodes.get(&me).cloned());
        if let Some(node) = own.as_ref().filter(|node| node.role == node.upgrade_to) {
            // It was told that it is not, where the answer took too long.
            if !told.is_empty() {
                tracing::info!(%me, role = %node.role, "this node was upgraded");
            }
            return;
        }
        // A clone may take hours, in which the answer is known. A cluster without databases has none to stream from.
        let streams = |leader: &Leader| {
            leader.db_port.is_none() || database.as_ref().is_none_or(|database| database.status().borrow().streaming)
        };
        if let (Some(_), Some(leader)) = (own, cluster.leader().ok().filter(streams)) {
            let address = SocketAddr::new(leader.ip, leader.api_port.get());
            // A witness has no database, and its port is not used.
            let db_port = db_port.unwrap_or(api_port);
            let query = [("db-port", db_port.to_string()), ("api-port", api_port.to_string())];
            let asked = async {
                let url = address_of(address, security.has_tls())?;
                Asker::new(url, &security)?.ask::<Node>(Method::PATCH, &format!("/node/{me}"), &query).await
            };
            match asked.await {
                Ok(node) => {
                    tracing::info!(%me, role = %node.role, "this node was upgraded");
                    return;
                }
                Err(error) => {
                    let reason = report::chain(&error);
                    if reason != told {
                        tracing::info!(reason, "this node is not upgraded yet");
                        told = reason;
                    }
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn address_of(address: SocketAddr, tls: bool) -> Result<Url, JoinError> {
    let scheme = if tls { "https" } else { "http" };
    self::address(&format!("{scheme}://{address}"), tls)
}

/// Shows how far the clone of the database is, until it is done: as a bar at a terminal, otherwise in the log.
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
    fn an_address_that_is_none_is_refused_with_an_example() {
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
