//! The settings of a client.

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

    /// The token that is sent to the nodes: a `read` token, or an `admin` token for changes.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The time for an operation, all attempts together; by default 10 s. A change is sent only while there is enough
    /// time left for an answer: the [time for an attempt](Self::attempt_timeout), or a quarter of the deadline if that
    /// is less.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long a node may take to answer a read before another node is asked; by default 3 s. A change may take until
    /// the deadline, because its outcome is unknown until the node answers.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt = timeout;
        self
    }

    /// How long a node may take to accept a connection; by default 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect = timeout;
        self
    }

    /// The pause after an operation has failed at every node, before it is tried again; by default 50 ms and 1 s. The
    /// first pause is at most `first`, and each later one up to twice as long as the one before, but at most `longest`.
    /// Each is shortened at random, by up to a half.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = Backoff { next: first, longest };
        self
    }

    /// How long a watch lets a node wait for news before it answers; by default 5 s, and at most 5 min. A watch gives
    /// up a frozen node after this time and the time for an attempt.
    pub fn wait(mut self, wait: model::Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The certificates (PEM) of the authorities to trust. Without them, the client trusts the authorities that the
    /// platform trusts.
    #[cfg(feature = "tls")]
    pub fn ca_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.authorities = Some(pem.into());
        self
    }

    /// The caller's certificate and its key, for nodes that ask for one: both in PEM, one after the other.
    #[cfg(feature = "tls")]
    pub fn identity(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.identity = Some(pem.into());
        self
    }

    /// Changes the settings of the HTTP clients, for example to use a proxy. The function is called twice: for the
    /// client for reads, and for the client for changes.
    pub fn http(
        mut self,
        configure: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + Sync + 'static,
    ) -> Self {
        self.configure = Some(Box::new(configure));
        self
    }

    /// Makes the client. It does not connect yet.
    ///
    /// # Errors
    ///
    /// [`Error::NoAddress`], [`Error::Address`] or [`Error::Token`] if what was given cannot be used, an error for
    /// certificates that cannot be used, and [`Error::Setup`] if the HTTP client cannot be set up.
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
                // Nodes do not redirect. Whatever does is not a node, and a redirect must not pass the token on.
                .redirect(reqwest::redirect::Policy::none())
                // Only this crate decides which requests are repeated.
                .retry(reqwest::retry::never())
                // Finds out within four seconds that a host is gone, while a request waits for its answer.
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
