//! A typed client for the REST API of qluster: high availability for PostgreSQL.
//!
//! [`ClusterClient`] talks to a cluster: it is given the addresses of a few nodes, reads from whichever answers, finds
//! the leader and follows it when it changes.
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
//! A change goes to the leader, wherever that is. It is repeated only where it is certain that it was not made, so there
//! are three ways in which it can fail, and they ask for different things.
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
//!     // Nothing was changed, and asking again at once would not help: the reason says what would.
//!     Err(error @ Error::Refused { .. }) => println!("refused: {:?}", error.answer()),
//!     // It may still take effect: look before you ask again.
//!     Err(Error::Unconfirmed { .. }) => println!("{:?} leads now", cluster.map().await?.leader),
//!     // Nothing was changed, and nobody could be asked.
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Events
//!
//! What happened in the cluster, from the first that is still kept, and then as it happens:
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
//! - [`ClusterClient`]: the cluster as a whole, with what a caller would otherwise have to decide about retries.
//! - [`model`]: what the API speaks of, the very types of the server.
//! - [`generated`]: one node, operation by operation, exactly as `openapi.yaml` says; [`ClusterClient::at`] gives one.
//!
//! # Features
//!
//! - `tls`: `https` addresses, with [`ClusterClientBuilder::ca_certificates`] and [`ClusterClientBuilder::identity`].
//! - `cli`: the command line, `qluster`. The library is the same without it.
//! - `readonly`: `ReadonlySet`, which statements may be sent to standbys. It builds PostgreSQL's parser, and needs
//!   libclang (Debian's libclang-dev) for that.
//!
//! Nodes that have tokens are given one by [`ClusterClientBuilder::token`].

#![deny(missing_docs)]

mod cluster;
mod error;
// Made from openapi.yaml and compared with it by a test; written as the generator prints it.
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
