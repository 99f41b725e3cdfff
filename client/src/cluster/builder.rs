//! What a client is told before it asks.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::asking::Backoff;
use super::nodes::{Nodes, parse};
use super::{ClusterClient, Inner};
use crate::{Error, model};

type Configure = Box<dyn Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + Sync>;

/// Settings of a [`ClusterClient`]; see [`ClusterClient::builder`].
pub struct ClusterClientBuilder {
    addresses: Vec<String>,
    token: Option<String>,
    deadline: Duration,
    attempt: Duration,
    connect: Duration,
    wait: model::Duration,
    backoff: Backoff,
    configure: Option<Configure>,
    #[cfg(feature = "tls")]
    tls: crate::tls::Tls,
}

impl ClusterClientBuilder {
    pub(super) fn new(addresses: Vec<String>) -> Self {
        Self {
            addresses,
            token: None,
            deadline: Duration::from_secs(10),
            attempt: Duration::from_secs(3),
            connect: Duration::from_secs(1),
            wait: model::Duration::from_millis(5_000),
            backoff: Backoff { next: Duration::from_millis(50), longest: Duration::from_secs(1) },
            configure: None,
            #[cfg(feature = "tls")]
            tls: crate::tls::Tls::default(),
        }
    }

    /// The credential: a token that the nodes accept, `read` or `admin`.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// How long an operation is tried, all attempts together. A change is sent only while there is time left for an
    /// answer: that for an attempt, or a quarter of this where that is less. Default 10 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long a node may take to answer a read before another is asked. A change may take until the deadline, since
    /// giving up would leave its outcome unknown. Default 3 s.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt = timeout;
        self
    }

    /// How long a node may take to accept a connection. Default 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect = timeout;
        self
    }

    /// How long to pause before what failed at every node is tried again: at random between a half and the whole of
    /// `first`, and twice that each time, up to `longest`. Default 50 ms and 1 s.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = Backoff { next: first, longest };
        self
    }

    /// How long a node is asked to wait for news, when watching. A node that froze is given up after this and the time
    /// for an attempt. Default 5 s; nodes take at most 5 m.
    pub fn wait(mut self, wait: model::Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Trusts nodes whose certificate is from one of these authorities, in PEM, and no others. Without it, those are
    /// trusted that the platform trusts.
    #[cfg(feature = "tls")]
    pub fn ca_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.authorities = Some(pem.into());
        self
    }

    /// The caller's own certificate, for nodes that want one, and its key: both in PEM, one after the other.
    #[cfg(feature = "tls")]
    pub fn identity(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.identity = Some(pem.into());
        self
    }

    /// Changes the HTTP clients: a proxy, for instance. It is called for each of the
    /// two: one for reads and one for changes.
    pub fn http(
        mut self,
        configure: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + Sync + 'static,
    ) -> Self {
        self.configure = Some(Box::new(configure));
        self
    }

    /// The client. Nothing is asked yet.
    pub fn build(self) -> Result<ClusterClient, Error> {
        let seeds = self.addresses.iter().map(|address| parse(address)).collect::<Result<Vec<_>, _>>()?;
        if seeds.is_empty() {
            return Err(Error::NoAddress);
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Error::Token)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = || -> Result<reqwest::ClientBuilder, Error> {
            let builder = reqwest::Client::builder()
                .default_headers(headers.clone())
                .connect_timeout(self.connect)
                // Nodes do not redirect; whoever does is no node, and gets no credential passed on.
                .redirect(reqwest::redirect::Policy::none())
                // What may be repeated is decided here alone.
                .retry(reqwest::retry::never())
                // Finds out about a host that is gone while it is waited for: within four seconds.
                .tcp_keepalive(Duration::from_secs(1))
                .tcp_keepalive_interval(Duration::from_secs(1))
                .tcp_keepalive_retries(3)
                // Nodes are near; a proxy in between would hide whether a request was sent.
                .no_proxy();
            #[cfg(feature = "tls")]
            let builder = self.tls.apply(builder)?;
            Ok(match &self.configure {
                Some(configure) => configure(builder),
                None => builder,
            })
        };
        let reads = http()?.build().map_err(Error::Setup)?;
        let changes = http()?.pool_max_idle_per_host(0).build().map_err(Error::Setup)?;
        let nodes = Mutex::new(Nodes::new(seeds));
        let Self { deadline, attempt, wait, backoff, .. } = self;
        Ok(ClusterClient { inner: Arc::new(Inner { deadline, attempt, wait, backoff, reads, changes, nodes }) })
    }
}

impl fmt::Debug for ClusterClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterClientBuilder").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
