// Generated from openapi.yaml by `cargo xtask client`; do not edit.

#[allow(unused_imports)]
pub use progenitor_client::{ByteStream, ClientInfo, Error, ResponseValue};
#[allow(unused_imports)]
use progenitor_client::{encode_path, ClientHooks, OperationInfo, RequestBuilderExt};
/// Types used as operation parameters and responses.
#[allow(clippy::all)]
pub mod types {
    ///The settings of a database as it runs.
    #[derive(::serde::Deserialize, ::serde::Serialize, Clone, Debug, PartialEq)]
    pub struct DbConfig {
        ///Settings that differ from the built-in default, by name.
        pub settings: ::std::vec::Vec<DbSetting>,
        ///Identifies the database cluster and its physical copies: a number of 64 bits, as text.
        #[serde(rename = "system-identifier")]
        pub system_identifier: ::std::string::String,
        ///Version of the server, as it tells it.
        pub version: ::std::string::String,
    }
    impl DbConfig {
        pub fn builder() -> builder::DbConfig {
            Default::default()
        }
    }
    ///A setting of a database.
    #[derive(::serde::Deserialize, ::serde::Serialize, Clone, Debug, PartialEq)]
    pub struct DbSetting {
        ///Its name.
        pub name: ::std::string::String,
        ///Whether a changed value waits for a restart of the database.
        #[serde(rename = "pending-restart")]
        pub pending_restart: bool,
        ///Where the value comes from, as PostgreSQL names it.
        pub source: ::std::string::String,
        ///Unit of the value, as PostgreSQL names it, where it has one.
        #[serde(skip_serializing_if = "::std::option::Option::is_none")]
        pub unit: ::std::option::Option<::std::string::String>,
        ///Its value, in `unit` where it has one. Secrets are masked.
        pub value: ::std::string::String,
    }
    impl DbSetting {
        pub fn builder() -> builder::DbSetting {
            Default::default()
        }
    }
    /// Types for composing complex structures.
    pub mod builder {
        #[derive(Clone, Debug)]
        pub struct DbConfig {
            settings: ::std::result::Result<
                ::std::vec::Vec<super::DbSetting>,
                ::std::string::String,
            >,
            system_identifier: ::std::result::Result<
                ::std::string::String,
                ::std::string::String,
            >,
            version: ::std::result::Result<::std::string::String, ::std::string::String>,
        }
        impl ::std::default::Default for DbConfig {
            fn default() -> Self {
                Self {
                    settings: Err("no value supplied for settings".to_string()),
                    system_identifier: Err(
                        "no value supplied for system_identifier".to_string(),
                    ),
                    version: Err("no value supplied for version".to_string()),
                }
            }
        }
        impl DbConfig {
            pub fn settings<T>(mut self, value: T) -> Self
            where
                T: ::std::convert::TryInto<::std::vec::Vec<super::DbSetting>>,
                T::Error: ::std::fmt::Display,
            {
                self.settings = value
                    .try_into()
                    .map_err(|e| {
                        format!("error converting supplied value for settings: {e}")
                    });
                self
            }
            pub fn system_identifier<T>(mut self, value: T) -> Self
            where
                T: ::std::convert::TryInto<::std::string::String>,
                T::Error: ::std::fmt::Display,
            {
                self.system_identifier = value
                    .try_into()
                    .map_err(|e| {
                        format!(
                            "error converting supplied value for system_identifier: {e}"
                        )
                    });
                self
            }
            pub fn version<T>(mut self, value: T) -> Self
            where
                T: ::std::convert::TryInto<::std::string::String>,
                T::Error: ::std::fmt::Display,
            {
                self.version = value
                    .try_into()
                    .map_err(|e| {
                        format!("error converting supplied value for version: {e}")
                    });
                self
            }
        }
        impl ::std::convert::TryFrom<DbConfig> for super::DbConfig {
            type Error = super::error::ConversionError;
            fn try_from(
                value: DbConfig,
            ) -> ::std::result::Result<Self, super::error::ConversionError> {
                Ok(Self {
                    settings: value.settings?,
                    system_identifier: value.system_identifier?,
                    version: value.version?,
                })
            }
        }
        impl ::std::convert::From<super::DbConfig> for DbConfig {
            fn from(value: super::DbConfig) -> Self {
                Self {
                    settings: Ok(value.settings),
                    system_identifier: Ok(value.system_identifier),
                    version: Ok(value.version),
                }
            }
        }
        #[derive(Clone, Debug)]
        pub struct DbSetting {
            name: ::std::result::Result<::std::string::String, ::std::string::String>,
            pending_restart: ::std::result::Result<bool, ::std::string::String>,
            source: ::std::result::Result<::std::string::String, ::std::string::String>,
            unit: ::std::result::Result<
                ::std::option::Option<::std::string::String>,
                ::std::string::String,
            >,
            value: ::std::result::Result<::std::string::String, ::std::string::String>,
        }
        impl ::std::default::Default for DbSetting {
            fn default() -> Self {
                Self {
                    name: Err("no value supplied for name".to_string()),
                    pending_restart: Err(
                        "no value supplied for pending_restart".to_string(),
                    ),
                    source: Err("no value supplied for source".to_string()),
                    unit: Ok(Default::default()),
                    value: Err("no value supplied for value".to_string()),
                }
            }
        }
        impl DbSetting {
            pub fn name<T>(mut self, value: T) -> Self
            where
                T: ::std::convert::TryInto<::std::string::String>,
                T::Error: ::std::fmt::Display,
            {
                self.name = value
                    .try_into()
                    .map_err(|e| {
                        format!("error converting supplied value for name: {e}")
                    });
                self
            }
            pub fn pending_restart<T>(mut self, value: T) -> Self
            where
                T: ::std::convert::TryInto<bool>,
                T::Error: ::std::fmt::Display,
            {
                self.pending_restart = value
                    .try_into()
                    .map_err(|e| {
                        format!(
                            "error converting supplied value for pending_restart: {e}"
                        )
                    });
                self
            }
            pub fn source<T>(mut self, value: T) -> Self
            where
                T: ::std::convert::TryInto<::std::string::String>,
                T::Error: ::std::fmt::Display,
            {
                self.source = value
                    .try_into()
                    .map_err(|e| {
                        format!("error converting supplied value for source: {e}")
                    });
                self
            }
            pub fn unit<T>(mut self, value: T) -> Self
            where
                T: ::std::convert::TryInto<::std::option::Option<::std::string::String>>,
                T::Error: ::std::fmt::Display,
            {
                self.unit = value
                    .try_into()
                    .map_err(|e| {
                        format!("error converting supplied value for unit: {e}")
                    });
                self
            }
            pub fn value<T>(mut self, value: T) -> Self
            where
                T: ::std::convert::TryInto<::std::string::String>,
                T::Error: ::std::fmt::Display,
            {
                self.value = value
                    .try_into()
                    .map_err(|e| {
                        format!("error converting supplied value for value: {e}")
                    });
                self
            }
        }
        impl ::std::convert::TryFrom<DbSetting> for super::DbSetting {
            type Error = super::error::ConversionError;
            fn try_from(
                value: DbSetting,
            ) -> ::std::result::Result<Self, super::error::ConversionError> {
                Ok(Self {
                    name: value.name?,
                    pending_restart: value.pending_restart?,
                    source: value.source?,
                    unit: value.unit?,
                    value: value.value?,
                })
            }
        }
        impl ::std::convert::From<super::DbSetting> for DbSetting {
            fn from(value: super::DbSetting) -> Self {
                Self {
                    name: Ok(value.name),
                    pending_restart: Ok(value.pending_restart),
                    source: Ok(value.source),
                    unit: Ok(value.unit),
                    value: Ok(value.value),
                }
            }
        }
    }
    /// Error types.
    pub mod error {
        /// Error from a `TryFrom` or `FromStr` implementation.
        pub struct ConversionError(::std::borrow::Cow<'static, str>);
        impl ::std::error::Error for ConversionError {}
        impl ::std::fmt::Display for ConversionError {
            fn fmt(
                &self,
                f: &mut ::std::fmt::Formatter<'_>,
            ) -> Result<(), ::std::fmt::Error> {
                ::std::fmt::Display::fmt(&self.0, f)
            }
        }
        impl ::std::fmt::Debug for ConversionError {
            fn fmt(
                &self,
                f: &mut ::std::fmt::Formatter<'_>,
            ) -> Result<(), ::std::fmt::Error> {
                ::std::fmt::Debug::fmt(&self.0, f)
            }
        }
        impl From<&'static str> for ConversionError {
            fn from(value: &'static str) -> Self {
                Self(value.into())
            }
        }
        impl From<String> for ConversionError {
            fn from(value: String) -> Self {
                Self(value.into())
            }
        }
    }
}
#[derive(Clone, Debug)]
/**Client for qluster rest api

The REST API of a qluster node: who leads, who is there, and how to change it.

Every operation answers for the node that is asked. Any node serves reads, from what it has applied. Only the leader makes changes; another node answers 417 and names it. To wait for changes, ask `/map` or `/events` with `after-index` and `wait`: the answer comes when there is something newer.

Every answer but 200 and 304 has a body of the schema `Error`:

| code | error-code | means | may the caller retry? |
|---|---|---|---|
| 400 | `bad-request` | a parameter or the body is malformed or breaks a rule | no |
| 401 | `unauthenticated` | no credential, or a wrong one | no |
| 403 | `forbidden` | the credential does not allow this | no |
| 404 | `not-found` | there is no such path | no |
| 410 | `superseded` | leadership moved on before the change was committed; nothing was applied | yes, at the new leader |
| 412 | `precondition-failed` | this node, or the node addressed, is not in the state that this needs | after the reason is gone |
| 417 | `not-leader` | only the leader does this, and this node is not it; the body says who is | yes, at the leader |
| 420 | `unconfirmed` | the change is in the leader's log but was not confirmed in time: it may still take effect | look first |
| 429 | `too-many-requests` | too many wrong credentials came from this address | yes, shortly |
| 500 | `internal` | a defect or a failing disk | no |
| 503 | `not-serving` | a load balancer's check is not met; the body says why | at another node |
| 530 | `no-leader` | the cluster has no leader now | yes, shortly |
| 531 | `unavailable` | this node's consensus is starting, stopping or has stopped, or its database does not answer | yes, elsewhere |


Version: 0.1.0*/
pub struct Client {
    pub(crate) baseurl: String,
    pub(crate) client: reqwest::Client,
}
impl Client {
    /// Create a new client.
    ///
    /// `baseurl` is the base URL provided to the internal
    /// `reqwest::Client`, and should include a scheme and hostname,
    /// as well as port and a path stem if applicable.
    pub fn new(baseurl: &str) -> Self {
        #[cfg(not(target_arch = "wasm32"))]
        let client = {
            let dur = ::std::time::Duration::from_secs(15u64);
            reqwest::ClientBuilder::new().connect_timeout(dur).timeout(dur)
        };
        #[cfg(target_arch = "wasm32")]
        let client = reqwest::ClientBuilder::new();
        Self::new_with_client(baseurl, client.build().unwrap())
    }
    /// Construct a new client with an existing `reqwest::Client`,
    /// allowing more control over its configuration.
    ///
    /// `baseurl` is the base URL provided to the internal
    /// `reqwest::Client`, and should include a scheme and hostname,
    /// as well as port and a path stem if applicable.
    pub fn new_with_client(baseurl: &str, client: reqwest::Client) -> Self {
        Self {
            baseurl: baseurl.to_string(),
            client,
        }
    }
}
impl ClientInfo<()> for Client {
    fn api_version() -> &'static str {
        "0.1.0"
    }
    fn baseurl(&self) -> &str {
        self.baseurl.as_str()
    }
    fn client(&self) -> &reqwest::Client {
        &self.client
    }
    fn inner(&self) -> &() {
        &()
    }
}
impl ClientHooks<()> for &Client {}
impl Client {
    /**Get cluster configuration

Sends a `GET` request to `/config`

```ignore
let response = client.config_get()
    .send()
    .await;
```*/
    pub fn config_get(&self) -> builder::ConfigGet<'_> {
        builder::ConfigGet::new(self)
    }
    /**Update cluster configuration

Send any of the settings; the others stay. Unknown settings are refused, and so are settings that together break the timing rule (three heartbeats within `node-timeout`): then nothing is changed. The answer has all settings.

Sends a `POST` request to `/config`

```ignore
let response = client.config_post()
    .body(body)
    .send()
    .await;
```*/
    pub fn config_post(&self) -> builder::ConfigPost<'_> {
        builder::ConfigPost::new(self)
    }
    /**Get database configuration

The settings that the running PostgreSQL of this node reports.

Sends a `GET` request to `/db-config`

```ignore
let response = client.db_config()
    .send()
    .await;
```*/
    pub fn db_config(&self) -> builder::DbConfig<'_> {
        builder::DbConfig::new(self)
    }
    /**Cluster events

The oldest come first. With `after-index`, only events after that log index; with `wait` as well, the answer waits until there is one.

Sends a `GET` request to `/events`

Arguments:
- `after_index`: Only events after this log index.
- `limit`: How many events to return at most; default 1000. With `after-index` the oldest of those after it, otherwise the newest.
- `wait`: How long to wait if there is no event after `after-index`; default 0s, at most 5m.
```ignore
let response = client.events()
    .after_index(after_index)
    .limit(limit)
    .wait(wait)
    .send()
    .await;
```*/
    pub fn events(&self) -> builder::Events<'_> {
        builder::Events::new(self)
    }
    /**Whether the database of this node runs

Sends a `GET` request to `/health`

```ignore
let response = client.health()
    .send()
    .await;
```*/
    pub fn health(&self) -> builder::Health<'_> {
        builder::Health::new(self)
    }
    /**Returns the cluster information needed to start a previously added node

Sends a `GET` request to `/info`

```ignore
let response = client.info()
    .send()
    .await;
```*/
    pub fn info(&self) -> builder::Info<'_> {
        builder::Info::new(self)
    }
    /**Returns 200 if this node is the cluster leader

That is: it was elected, its lease holds, and it has applied the first entry of its term. No two nodes answer 200 at once.

Sends a `GET` request to `/is-leader`

```ignore
let response = client.is_leader()
    .send()
    .await;
```*/
    pub fn is_leader(&self) -> builder::IsLeader<'_> {
        builder::IsLeader::new(self)
    }
    /**Get leader addresses

Sends a `GET` request to `/leader`

```ignore
let response = client.leader_get()
    .send()
    .await;
```*/
    pub fn leader_get(&self) -> builder::LeaderGet<'_> {
        builder::LeaderGet::new(self)
    }
    /**Change leader

A planned switchover. The answer is the new leader once it leads, or 412 with the reason if the node is not fit to lead. `accept-data-loss` is for a cluster in which no node can lead.

Sends a `POST` request to `/leader`

Arguments:
- `accept_data_loss`: Make it the leader even though acknowledged commits may be lost. This is only possible if no node can lead, because nodes that may have more commits are gone or not fit (`reason` in the map says so). Any node accepts this request. It is recorded as the event `data-loss-accepted`. Default false.
- `node`: New leader ID
```ignore
let response = client.leader_post()
    .accept_data_loss(accept_data_loss)
    .node(node)
    .send()
    .await;
```*/
    pub fn leader_post(&self) -> builder::LeaderPost<'_> {
        builder::LeaderPost::new(self)
    }
    /**Whether this node is alive

503 if its consensus has stopped; a restart may help. The body is null while the node is starting or joining.

Sends a `GET` request to `/liveness`

```ignore
let response = client.liveness()
    .send()
    .await;
```*/
    pub fn liveness(&self) -> builder::Liveness<'_> {
        builder::Liveness::new(self)
    }
    /**Returns the cluster map and settings

With `after-index`, the answer waits until the map is newer than that index. After `wait`, the answer is the map as it is.

Sends a `GET` request to `/map`

Arguments:
- `after_index`: Wait for a map that is newer than this log index.
- `wait`: How long to wait for it; default 30s, at most 5m. Only with `after-index`.
```ignore
let response = client.map()
    .after_index(after_index)
    .wait(wait)
    .send()
    .await;
```*/
    pub fn map(&self) -> builder::Map<'_> {
        builder::Map::new(self)
    }
    /**The metrics of this node, in Prometheus' text format

Sends a `GET` request to `/metrics`

```ignore
let response = client.metrics()
    .send()
    .await;
```*/
    pub fn metrics(&self) -> builder::Metrics<'_> {
        builder::Metrics::new(self)
    }
    /**Add a new node to the cluster (all new nodes initially become listeners)

The answer is the new node with its id. A host that comes back after it was removed gets a new id.

Sends a `POST` request to `/node`

Arguments:
- `api_port`: Its rest api port; default is the port of the node that is asked
- `ip`: IP address of the listener node
- `role`: Node role: what it becomes when it is enrolled
```ignore
let response = client.node_add()
    .api_port(api_port)
    .ip(ip)
    .role(role)
    .send()
    .await;
```*/
    pub fn node_add(&self) -> builder::NodeAdd<'_> {
        builder::NodeAdd::new(self)
    }
    /**The database of a node has problems: now it can't participate in votings and be a replica for poolers

This lasts until the node is brought back. A leader hands over first.

Sends a `POST` request to `/node-down/{node}`

Arguments:
- `node`: Node ID
```ignore
let response = client.node_down()
    .node(node)
    .send()
    .await;
```*/
    pub fn node_down(&self) -> builder::NodeDown<'_> {
        builder::NodeDown::new(self)
    }
    /**Remove a node from a cluster

The removed node notices it, stops its database and does not start it again by itself. The answer is 412 if the remaining nodes could not form a majority. A leader that is removed hands over first.

Sends a `DELETE` request to `/node/{node}`

Arguments:
- `node`: Node ID
```ignore
let response = client.node_remove()
    .node(node)
    .send()
    .await;
```*/
    pub fn node_remove(&self) -> builder::NodeRemove<'_> {
        builder::NodeRemove::new(self)
    }
    /**Upgrade the listener to a proper node

Gives the node the role that it was added for: it is enrolled. The node must be reachable and caught up and, if its role has a database, streaming; otherwise the answer is 412 with the reason. This also brings a node back after `/node-down`.

Sends a `PATCH` request to `/node/{node}`

Arguments:
- `node`: Node ID
- `api_port`: Rest api port
- `db_port`: Database port; not used for a witness
```ignore
let response = client.node_upgrade()
    .node(node)
    .api_port(api_port)
    .db_port(db_port)
    .send()
    .await;
```*/
    pub fn node_upgrade(&self) -> builder::NodeUpgrade<'_> {
        builder::NodeUpgrade::new(self)
    }
    /**Whether this node takes writes

This and the checks below are for load balancers. As with Patroni's, the answer to GET, HEAD and OPTIONS is 200 or 503. This one is 200 only at the leader, while its lease holds and its database lets clients in: never at two nodes at once.

Sends a `GET` request to `/primary`

```ignore
let response = client.primary()
    .send()
    .await;
```*/
    pub fn primary(&self) -> builder::Primary<'_> {
        builder::Primary::new(self)
    }
    /**Whether this node takes reads: `/primary` or `/replica`

Sends a `GET` request to `/read-only`

Arguments:
- `lag`: How much of the leader's WAL the standby may not have replayed yet: in bytes, or with a unit, `16MB`. A standby whose lag is larger, or unknown, does not meet the check.
```ignore
let response = client.read_only()
    .lag(lag)
    .send()
    .await;
```*/
    pub fn read_only(&self) -> builder::ReadOnly<'_> {
        builder::ReadOnly::new(self)
    }
    /**Whether this node is a working part of its cluster

200 for the leader if it lets clients in, for a standby that streams from it, and for a node without a database that knows the leader.

Sends a `GET` request to `/readiness`

Arguments:
- `lag`: How much of the leader's WAL the standby may not have replayed yet: in bytes, or with a unit, `16MB`. A standby whose lag is larger, or unknown, does not meet the check.
```ignore
let response = client.readiness()
    .lag(lag)
    .send()
    .await;
```*/
    pub fn readiness(&self) -> builder::Readiness<'_> {
        builder::Readiness::new(self)
    }
    /**Whether this node has a standby that may be read from

Sends a `GET` request to `/replica`

Arguments:
- `lag`: How much of the leader's WAL the standby may not have replayed yet: in bytes, or with a unit, `16MB`. A standby whose lag is larger, or unknown, does not meet the check.
```ignore
let response = client.replica()
    .lag(lag)
    .send()
    .await;
```*/
    pub fn replica(&self) -> builder::Replica<'_> {
        builder::Replica::new(self)
    }
    /**Human-readable cluster and rpc events

Text with a line for each event, the newest last.

Sends a `GET` request to `/rpc`

```ignore
let response = client.rpc()
    .send()
    .await;
```*/
    pub fn rpc(&self) -> builder::Rpc<'_> {
        builder::Rpc::new(self)
    }
    /**Get hashes of queries that don't write anything to the database

A statement with one of these hashes may be sent to any standby of the database, with any search path. If the header `if-none-match` has the `etag` of an earlier answer, the answer is 304 while nothing has changed; with `wait` as well, it waits for a change.

Sends a `GET` request to `/sql/readonly`

Arguments:
- `wait`: How long to wait for another answer than that of `if-none-match`; default 0s, at most 5m.
- `if_none_match`: The `etag` of an earlier answer. If that is still the same, the answer is 304 without a body.
```ignore
let response = client.sql_readonly()
    .wait(wait)
    .if_none_match(if_none_match)
    .send()
    .await;
```*/
    pub fn sql_readonly(&self) -> builder::SqlReadonly<'_> {
        builder::SqlReadonly::new(self)
    }
    /**Returns the state of the nodes: their databases, positions in the WAL, lag

The answer is what this node has last heard from the others. The leader has the newest answer.

Sends a `GET` request to `/status`

```ignore
let response = client.status()
    .send()
    .await;
```*/
    pub fn status(&self) -> builder::Status<'_> {
        builder::Status::new(self)
    }
}
/// Types for composing operation parameters.
#[allow(clippy::all)]
pub mod builder {
    use super::types;
    #[allow(unused_imports)]
    use super::{
        encode_path, ByteStream, ClientInfo, ClientHooks, Error, OperationInfo,
        RequestBuilderExt, ResponseValue,
    };
    /**Builder for [`Client::config_get`]

[`Client::config_get`]: super::Client::config_get*/
    #[derive(Debug, Clone)]
    pub struct ConfigGet<'a> {
        client: &'a super::Client,
    }
    impl<'a> ConfigGet<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self { client: client }
        }
        ///Sends a `GET` request to `/config`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::Config>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client } = self;
            let url = format!("{}/config", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "config_get",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::config_post`]

[`Client::config_post`]: super::Client::config_post*/
    #[derive(Debug, Clone)]
    pub struct ConfigPost<'a> {
        client: &'a super::Client,
        body: Result<::qluster_consensus::model::ConfigUpdate, String>,
    }
    impl<'a> ConfigPost<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self {
                client: client,
                body: Err("body was not initialized".to_string()),
            }
        }
        pub fn body<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::ConfigUpdate>,
        {
            self.body = value
                .try_into()
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: ConfigUpdate` for body failed"
                        .to_string()
                });
            self
        }
        ///Sends a `POST` request to `/config`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::Config>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client, body } = self;
            let body = body.map_err(Error::InvalidRequest)?;
            let url = format!("{}/config", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .post(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .json(&body)
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "config_post",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                400u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                403u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                410u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                417u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                420u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                530u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::db_config`]

[`Client::db_config`]: super::Client::db_config*/
    #[derive(Debug, Clone)]
    pub struct DbConfig<'a> {
        client: &'a super::Client,
    }
    impl<'a> DbConfig<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self { client: client }
        }
        ///Sends a `GET` request to `/db-config`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<types::DbConfig>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client } = self;
            let url = format!("{}/db-config", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "db_config",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::events`]

[`Client::events`]: super::Client::events*/
    #[derive(Debug, Clone)]
    pub struct Events<'a> {
        client: &'a super::Client,
        after_index: Result<Option<::qluster_consensus::model::LogIndex>, String>,
        limit: Result<Option<u32>, String>,
        wait: Result<Option<::qluster_consensus::model::Duration>, String>,
    }
    impl<'a> Events<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self {
                client: client,
                after_index: Ok(None),
                limit: Ok(None),
                wait: Ok(None),
            }
        }
        pub fn after_index<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::LogIndex>,
        {
            self.after_index = value
                .try_into()
                .map(Some)
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: LogIndex` for after_index failed"
                        .to_string()
                });
            self
        }
        pub fn limit<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<u32>,
        {
            self.limit = value
                .try_into()
                .map(Some)
                .map_err(|_| "conversion to `u32` for limit failed".to_string());
            self
        }
        pub fn wait<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::Duration>,
        {
            self.wait = value
                .try_into()
                .map(Some)
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: Duration` for wait failed"
                        .to_string()
                });
            self
        }
        ///Sends a `GET` request to `/events`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::std::vec::Vec<::qluster_consensus::model::Event>>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client, after_index, limit, wait } = self;
            let after_index = after_index.map_err(Error::InvalidRequest)?;
            let limit = limit.map_err(Error::InvalidRequest)?;
            let wait = wait.map_err(Error::InvalidRequest)?;
            let url = format!("{}/events", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .query(&progenitor_client::QueryParam::new("after-index", &after_index))
                .query(&progenitor_client::QueryParam::new("limit", &limit))
                .query(&progenitor_client::QueryParam::new("wait", &wait))
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "events",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                400u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::health`]

[`Client::health`]: super::Client::health*/
    #[derive(Debug, Clone)]
    pub struct Health<'a> {
        client: &'a super::Client,
    }
    impl<'a> Health<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self { client: client }
        }
        ///Sends a `GET` request to `/health`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::NodeStatus>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client } = self;
            let url = format!("{}/health", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "health",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                503u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::info`]

[`Client::info`]: super::Client::info*/
    #[derive(Debug, Clone)]
    pub struct Info<'a> {
        client: &'a super::Client,
    }
    impl<'a> Info<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self { client: client }
        }
        ///Sends a `GET` request to `/info`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::ClusterInfo>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client } = self;
            let url = format!("{}/info", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "info",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::is_leader`]

[`Client::is_leader`]: super::Client::is_leader*/
    #[derive(Debug, Clone)]
    pub struct IsLeader<'a> {
        client: &'a super::Client,
    }
    impl<'a> IsLeader<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self { client: client }
        }
        ///Sends a `GET` request to `/is-leader`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::Leader>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client } = self;
            let url = format!("{}/is-leader", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "is_leader",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                417u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                530u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::leader_get`]

[`Client::leader_get`]: super::Client::leader_get*/
    #[derive(Debug, Clone)]
    pub struct LeaderGet<'a> {
        client: &'a super::Client,
    }
    impl<'a> LeaderGet<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self { client: client }
        }
        ///Sends a `GET` request to `/leader`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::Leader>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client } = self;
            let url = format!("{}/leader", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "leader_get",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                530u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::leader_post`]

[`Client::leader_post`]: super::Client::leader_post*/
    #[derive(Debug, Clone)]
    pub struct LeaderPost<'a> {
        client: &'a super::Client,
        accept_data_loss: Result<Option<bool>, String>,
        node: Result<::qluster_consensus::model::NodeId, String>,
    }
    impl<'a> LeaderPost<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self {
                client: client,
                accept_data_loss: Ok(None),
                node: Err("node was not initialized".to_string()),
            }
        }
        pub fn accept_data_loss<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<bool>,
        {
            self.accept_data_loss = value
                .try_into()
                .map(Some)
                .map_err(|_| {
                    "conversion to `bool` for accept_data_loss failed".to_string()
                });
            self
        }
        pub fn node<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::NodeId>,
        {
            self.node = value
                .try_into()
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: NodeId` for node failed"
                        .to_string()
                });
            self
        }
        ///Sends a `POST` request to `/leader`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::Leader>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client, accept_data_loss, node } = self;
            let accept_data_loss = accept_data_loss.map_err(Error::InvalidRequest)?;
            let node = node.map_err(Error::InvalidRequest)?;
            let url = format!("{}/leader", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .post(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .query(
                    &progenitor_client::QueryParam::new(
                        "accept-data-loss",
                        &accept_data_loss,
                    ),
                )
                .query(&progenitor_client::QueryParam::new("node", &node))
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "leader_post",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                400u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                403u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                530u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::liveness`]

[`Client::liveness`]: super::Client::liveness*/
    #[derive(Debug, Clone)]
    pub struct Liveness<'a> {
        client: &'a super::Client,
    }
    impl<'a> Liveness<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self { client: client }
        }
        ///Sends a `GET` request to `/liveness`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::std::option::Option<::qluster_consensus::model::NodeStatus>>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client } = self;
            let url = format!("{}/liveness", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "liveness",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                503u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::map`]

[`Client::map`]: super::Client::map*/
    #[derive(Debug, Clone)]
    pub struct Map<'a> {
        client: &'a super::Client,
        after_index: Result<Option<::qluster_consensus::model::LogIndex>, String>,
        wait: Result<Option<::qluster_consensus::model::Duration>, String>,
    }
    impl<'a> Map<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self {
                client: client,
                after_index: Ok(None),
                wait: Ok(None),
            }
        }
        pub fn after_index<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::LogIndex>,
        {
            self.after_index = value
                .try_into()
                .map(Some)
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: LogIndex` for after_index failed"
                        .to_string()
                });
            self
        }
        pub fn wait<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::Duration>,
        {
            self.wait = value
                .try_into()
                .map(Some)
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: Duration` for wait failed"
                        .to_string()
                });
            self
        }
        ///Sends a `GET` request to `/map`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::ClusterMap>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client, after_index, wait } = self;
            let after_index = after_index.map_err(Error::InvalidRequest)?;
            let wait = wait.map_err(Error::InvalidRequest)?;
            let url = format!("{}/map", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .query(&progenitor_client::QueryParam::new("after-index", &after_index))
                .query(&progenitor_client::QueryParam::new("wait", &wait))
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "map",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                400u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::metrics`]

[`Client::metrics`]: super::Client::metrics*/
    #[derive(Debug, Clone)]
    pub struct Metrics<'a> {
        client: &'a super::Client,
    }
    impl<'a> Metrics<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self { client: client }
        }
        ///Sends a `GET` request to `/metrics`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<ByteStream>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client } = self;
            let url = format!("{}/metrics", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client.client.get(url).headers(header_map).build()?;
            let info = OperationInfo {
                operation_id: "metrics",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => Ok(ResponseValue::stream(response)),
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::node_add`]

[`Client::node_add`]: super::Client::node_add*/
    #[derive(Debug, Clone)]
    pub struct NodeAdd<'a> {
        client: &'a super::Client,
        api_port: Result<Option<::qluster_consensus::model::Port>, String>,
        ip: Result<::std::net::IpAddr, String>,
        role: Result<::qluster_consensus::model::NodeRole, String>,
    }
    impl<'a> NodeAdd<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self {
                client: client,
                api_port: Ok(None),
                ip: Err("ip was not initialized".to_string()),
                role: Err("role was not initialized".to_string()),
            }
        }
        pub fn api_port<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::Port>,
        {
            self.api_port = value
                .try_into()
                .map(Some)
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: Port` for api_port failed"
                        .to_string()
                });
            self
        }
        pub fn ip<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::std::net::IpAddr>,
        {
            self.ip = value
                .try_into()
                .map_err(|_| {
                    "conversion to `:: std :: net :: IpAddr` for ip failed".to_string()
                });
            self
        }
        pub fn role<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::NodeRole>,
        {
            self.role = value
                .try_into()
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: NodeRole` for role failed"
                        .to_string()
                });
            self
        }
        ///Sends a `POST` request to `/node`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::Node>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client, api_port, ip, role } = self;
            let api_port = api_port.map_err(Error::InvalidRequest)?;
            let ip = ip.map_err(Error::InvalidRequest)?;
            let role = role.map_err(Error::InvalidRequest)?;
            let url = format!("{}/node", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .post(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .query(&progenitor_client::QueryParam::new("api-port", &api_port))
                .query(&progenitor_client::QueryParam::new("ip", &ip))
                .query(&progenitor_client::QueryParam::new("role", &role))
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "node_add",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                400u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                403u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                410u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                417u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                420u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                530u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::node_down`]

[`Client::node_down`]: super::Client::node_down*/
    #[derive(Debug, Clone)]
    pub struct NodeDown<'a> {
        client: &'a super::Client,
        node: Result<::qluster_consensus::model::NodeId, String>,
    }
    impl<'a> NodeDown<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self {
                client: client,
                node: Err("node was not initialized".to_string()),
            }
        }
        pub fn node<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::NodeId>,
        {
            self.node = value
                .try_into()
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: NodeId` for node failed"
                        .to_string()
                });
            self
        }
        ///Sends a `POST` request to `/node-down/{node}`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::Node>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client, node } = self;
            let node = node.map_err(Error::InvalidRequest)?;
            let url = format!(
                "{}/node-down/{}", client.baseurl, encode_path(& node.to_string()),
            );
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .post(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "node_down",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                400u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                403u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                410u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                417u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                420u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                530u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::node_remove`]

[`Client::node_remove`]: super::Client::node_remove*/
    #[derive(Debug, Clone)]
    pub struct NodeRemove<'a> {
        client: &'a super::Client,
        node: Result<::qluster_consensus::model::NodeId, String>,
    }
    impl<'a> NodeRemove<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self {
                client: client,
                node: Err("node was not initialized".to_string()),
            }
        }
        pub fn node<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::NodeId>,
        {
            self.node = value
                .try_into()
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: NodeId` for node failed"
                        .to_string()
                });
            self
        }
        ///Sends a `DELETE` request to `/node/{node}`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::Node>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client, node } = self;
            let node = node.map_err(Error::InvalidRequest)?;
            let url = format!(
                "{}/node/{}", client.baseurl, encode_path(& node.to_string()),
            );
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .delete(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "node_remove",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                400u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                403u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                410u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                417u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                420u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                530u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::node_upgrade`]

[`Client::node_upgrade`]: super::Client::node_upgrade*/
    #[derive(Debug, Clone)]
    pub struct NodeUpgrade<'a> {
        client: &'a super::Client,
        node: Result<::qluster_consensus::model::NodeId, String>,
        api_port: Result<::qluster_consensus::model::Port, String>,
        db_port: Result<::qluster_consensus::model::Port, String>,
    }
    impl<'a> NodeUpgrade<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self {
                client: client,
                node: Err("node was not initialized".to_string()),
                api_port: Err("api_port was not initialized".to_string()),
                db_port: Err("db_port was not initialized".to_string()),
            }
        }
        pub fn node<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::NodeId>,
        {
            self.node = value
                .try_into()
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: NodeId` for node failed"
                        .to_string()
                });
            self
        }
        pub fn api_port<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::Port>,
        {
            self.api_port = value
                .try_into()
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: Port` for api_port failed"
                        .to_string()
                });
            self
        }
        pub fn db_port<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::Port>,
        {
            self.db_port = value
                .try_into()
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: Port` for db_port failed"
                        .to_string()
                });
            self
        }
        ///Sends a `PATCH` request to `/node/{node}`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::Node>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client, node, api_port, db_port } = self;
            let node = node.map_err(Error::InvalidRequest)?;
            let api_port = api_port.map_err(Error::InvalidRequest)?;
            let db_port = db_port.map_err(Error::InvalidRequest)?;
            let url = format!(
                "{}/node/{}", client.baseurl, encode_path(& node.to_string()),
            );
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .patch(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .query(&progenitor_client::QueryParam::new("api-port", &api_port))
                .query(&progenitor_client::QueryParam::new("db-port", &db_port))
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "node_upgrade",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                400u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                403u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                410u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                417u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                420u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                530u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::primary`]

[`Client::primary`]: super::Client::primary*/
    #[derive(Debug, Clone)]
    pub struct Primary<'a> {
        client: &'a super::Client,
    }
    impl<'a> Primary<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self { client: client }
        }
        ///Sends a `GET` request to `/primary`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::NodeStatus>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client } = self;
            let url = format!("{}/primary", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "primary",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                503u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::read_only`]

[`Client::read_only`]: super::Client::read_only*/
    #[derive(Debug, Clone)]
    pub struct ReadOnly<'a> {
        client: &'a super::Client,
        lag: Result<Option<::std::string::String>, String>,
    }
    impl<'a> ReadOnly<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self {
                client: client,
                lag: Ok(None),
            }
        }
        pub fn lag<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::std::string::String>,
        {
            self.lag = value
                .try_into()
                .map(Some)
                .map_err(|_| {
                    "conversion to `:: std :: string :: String` for lag failed"
                        .to_string()
                });
            self
        }
        ///Sends a `GET` request to `/read-only`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::NodeStatus>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client, lag } = self;
            let lag = lag.map_err(Error::InvalidRequest)?;
            let url = format!("{}/read-only", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .query(&progenitor_client::QueryParam::new("lag", &lag))
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "read_only",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                400u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                503u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::readiness`]

[`Client::readiness`]: super::Client::readiness*/
    #[derive(Debug, Clone)]
    pub struct Readiness<'a> {
        client: &'a super::Client,
        lag: Result<Option<::std::string::String>, String>,
    }
    impl<'a> Readiness<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self {
                client: client,
                lag: Ok(None),
            }
        }
        pub fn lag<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::std::string::String>,
        {
            self.lag = value
                .try_into()
                .map(Some)
                .map_err(|_| {
                    "conversion to `:: std :: string :: String` for lag failed"
                        .to_string()
                });
            self
        }
        ///Sends a `GET` request to `/readiness`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::NodeStatus>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client, lag } = self;
            let lag = lag.map_err(Error::InvalidRequest)?;
            let url = format!("{}/readiness", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .query(&progenitor_client::QueryParam::new("lag", &lag))
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "readiness",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                400u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                503u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::replica`]

[`Client::replica`]: super::Client::replica*/
    #[derive(Debug, Clone)]
    pub struct Replica<'a> {
        client: &'a super::Client,
        lag: Result<Option<::std::string::String>, String>,
    }
    impl<'a> Replica<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self {
                client: client,
                lag: Ok(None),
            }
        }
        pub fn lag<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::std::string::String>,
        {
            self.lag = value
                .try_into()
                .map(Some)
                .map_err(|_| {
                    "conversion to `:: std :: string :: String` for lag failed"
                        .to_string()
                });
            self
        }
        ///Sends a `GET` request to `/replica`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::NodeStatus>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client, lag } = self;
            let lag = lag.map_err(Error::InvalidRequest)?;
            let url = format!("{}/replica", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .query(&progenitor_client::QueryParam::new("lag", &lag))
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "replica",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                400u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                503u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::rpc`]

[`Client::rpc`]: super::Client::rpc*/
    #[derive(Debug, Clone)]
    pub struct Rpc<'a> {
        client: &'a super::Client,
    }
    impl<'a> Rpc<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self { client: client }
        }
        ///Sends a `GET` request to `/rpc`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<ByteStream>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client } = self;
            let url = format!("{}/rpc", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client.client.get(url).headers(header_map).build()?;
            let info = OperationInfo {
                operation_id: "rpc",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => Ok(ResponseValue::stream(response)),
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::sql_readonly`]

[`Client::sql_readonly`]: super::Client::sql_readonly*/
    #[derive(Debug, Clone)]
    pub struct SqlReadonly<'a> {
        client: &'a super::Client,
        wait: Result<Option<::qluster_consensus::model::Duration>, String>,
        if_none_match: Result<Option<::std::string::String>, String>,
    }
    impl<'a> SqlReadonly<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self {
                client: client,
                wait: Ok(None),
                if_none_match: Ok(None),
            }
        }
        pub fn wait<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::qluster_consensus::model::Duration>,
        {
            self.wait = value
                .try_into()
                .map(Some)
                .map_err(|_| {
                    "conversion to `:: qluster_consensus :: model :: Duration` for wait failed"
                        .to_string()
                });
            self
        }
        pub fn if_none_match<V>(mut self, value: V) -> Self
        where
            V: std::convert::TryInto<::std::string::String>,
        {
            self.if_none_match = value
                .try_into()
                .map(Some)
                .map_err(|_| {
                    "conversion to `:: std :: string :: String` for if_none_match failed"
                        .to_string()
                });
            self
        }
        ///Sends a `GET` request to `/sql/readonly`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::ReadonlyStatements>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client, wait, if_none_match } = self;
            let wait = wait.map_err(Error::InvalidRequest)?;
            let if_none_match = if_none_match.map_err(Error::InvalidRequest)?;
            let url = format!("{}/sql/readonly", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(2usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            if let Some(value) = if_none_match {
                header_map.append("if-none-match", value.to_string().try_into()?);
            }
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .query(&progenitor_client::QueryParam::new("wait", &wait))
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "sql_readonly",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                400u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
    /**Builder for [`Client::status`]

[`Client::status`]: super::Client::status*/
    #[derive(Debug, Clone)]
    pub struct Status<'a> {
        client: &'a super::Client,
    }
    impl<'a> Status<'a> {
        pub fn new(client: &'a super::Client) -> Self {
            Self { client: client }
        }
        ///Sends a `GET` request to `/status`
        pub async fn send(
            self,
        ) -> Result<
            ResponseValue<::qluster_consensus::model::ClusterStatus>,
            Error<::qluster_consensus::model::Error>,
        > {
            let Self { client } = self;
            let url = format!("{}/status", client.baseurl,);
            let mut header_map = ::reqwest::header::HeaderMap::with_capacity(1usize);
            header_map
                .append(
                    ::reqwest::header::HeaderName::from_static("api-version"),
                    ::reqwest::header::HeaderValue::from_static(
                        super::Client::api_version(),
                    ),
                );
            #[allow(unused_mut)]
            let mut request = client
                .client
                .get(url)
                .header(
                    ::reqwest::header::ACCEPT,
                    ::reqwest::header::HeaderValue::from_static("application/json"),
                )
                .headers(header_map)
                .build()?;
            let info = OperationInfo {
                operation_id: "status",
            };
            client.pre(&mut request, &info).await?;
            let result = client.exec(request, &info).await;
            client.post(&result, &info).await?;
            let response = result?;
            match response.status().as_u16() {
                200u16 => ResponseValue::from_response(response).await,
                401u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                412u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                429u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                500u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                531u16 => {
                    Err(
                        Error::ErrorResponse(
                            ResponseValue::from_response(response).await?,
                        ),
                    )
                }
                _ => Err(Error::UnexpectedResponse(response)),
            }
        }
    }
}
/// Items consumers will typically use such as the Client.
pub mod prelude {
    pub use self::super::Client;
}
