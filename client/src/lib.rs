//! A typed client for the REST API of qluster: high availability for PostgreSQL.
//!
//! [`ClusterClient`] talks to a cluster. You give it the addresses of a few nodes. It reads from any node that answers,
//! finds the leader, and follows it when it changes.
//!
//! ```no_run
//! use futures::StreamExt;
//! use qluster_client::ClusterClient;
//!
//! # async fn example() -> Result<(), qluster_client::Error> {
//! let cluster = ClusterClient::new(["http://10.0.0.1:8080", "http://10.0.0.2:8080"])?;
//! let leader = cluster.leader().await?;
//! println!("node {} leads: PostgreSQL is at {}", leader.id, leader.ip);
//!
//! let mut maps = cluster.watch_map();
//! while let Some(map) = maps.next().await {
//!     println!("{:?} leads now", map?.leader);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Changes
//!
//! A change goes to the leader. The client repeats it only if it is certain that it was not made. So a change can fail
//! in three ways, and each needs another reaction.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use qluster_client::model::{self, ConfigUpdate, NodeId};
//! use qluster_client::{ClusterClient, Error};
//!
//! # async fn example(token: String) -> Result<(), Error> {
//! let cluster = ClusterClient::builder(["http://10.0.0.1:8080", "http://10.0.0.2:8080"])
//!     .token(token)
//!     .deadline(Duration::from_secs(20))
//!     .build()?;
//!
//! let node_timeout = Some(model::Duration::from_millis(2000));
//! cluster.update_config(&ConfigUpdate { node_timeout, ..Default::default() }).await?;
//!
//! match cluster.switch_over(NodeId(2)).await {
//!     Ok(leader) => println!("node {} leads now", leader.id),
//!     // Nothing was changed, and to ask again at once would not help. The answer has the reason.
//!     Err(error @ Error::Refused { .. }) => println!("refused: {:?}", error.answer()),
//!     // The change may still take effect: check before you ask again.
//!     Err(Error::Unconfirmed { .. }) => println!("{:?} leads now", cluster.map().await?.leader),
//!     // Nothing was changed, because no node answered.
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Events
//!
//! The events of the cluster: those that are still kept, oldest first, and then each new one as it happens:
//!
//! ```no_run
//! use futures::StreamExt;
//! use qluster_client::ClusterClient;
//! use qluster_client::model::LogIndex;
//!
//! # async fn example(cluster: ClusterClient) -> Result<(), qluster_client::Error> {
//! let mut events = cluster.watch_events(LogIndex(0));
//! while let Some(event) = events.next().await {
//!     let event = event?;
//!     println!("{} {}: {}", event.time, event.kind, event.cause);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! - [`ClusterClient`]: the cluster as a whole. It decides which node to ask, and when to ask again.
//! - [`model`]: the types of the API, which the server uses too.
//! - [`generated`]: the operations of one node, exactly as in `openapi.yaml`. [`ClusterClient::at`] makes this client.
//!
//! # Features
//!
//! - `tls`: `https` addresses, with [`ClusterClientBuilder::ca_certificates`] and [`ClusterClientBuilder::identity`].
//! - `cli`: the program `qluster`. It does not change the library.
//! - `readonly`: `ReadonlySet`, which knows the statements that may be sent to standbys. It compiles PostgreSQL's
//!   parser, which needs libclang (Debian: libclang-dev).
//!
//! If the nodes ask for a token, give it to [`ClusterClientBuilder::token`].
//!
//! The words of this documentation, such as term, lease or listener, are explained in `docs/glossary.md`, which every
//! node serves at `/docs/glossary.html`.

#![deny(missing_docs)]

mod cluster;
mod error;
// Generated from openapi.yaml, and not formatted afterwards. A test compares both.
#[allow(missing_docs, unreachable_pub, clippy::unwrap_used)]
#[rustfmt::skip]
pub mod generated;
#[cfg(feature = "readonly")]
mod readonly_set;
#[cfg(feature = "tls")]
mod tls;

pub use cluster::{ClusterClient, ClusterClientBuilder};
pub use error::{Cause, Error};
pub use generated::types::{DbConfig, DbSetting};
pub use qluster_consensus::model;
#[cfg(feature = "readonly")]
pub use readonly_set::ReadonlySet;
pub use reqwest;
