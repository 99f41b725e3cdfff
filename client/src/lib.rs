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
//! # Layout
//!
//! - [`ClusterClient`]: the cluster as a whole, with what a caller would otherwise have to decide about retries.
//! - [`model`]: what the API speaks of, the very types of the server.
//! - [`generated`]: one node, operation by operation, exactly as `openapi.yaml` says; [`ClusterClient::at`] gives one.
//!
//! # Features
//!
//! - `tls`: `https` addresses.
//! - `readonly`: `ReadonlySet`, which statements may be sent to standbys. It builds PostgreSQL's parser, and needs
//!   libclang (Debian's libclang-dev) for that.

#![deny(missing_docs)]

mod cluster;
mod error;
// Made from openapi.yaml and compared with it by a test; written as the generator prints it.
#[allow(missing_docs, unreachable_pub, clippy::unwrap_used)]
#[rustfmt::skip]
pub mod generated;
#[cfg(feature = "readonly")]
mod readonly_set;

pub use cluster::{ClusterClient, ClusterClientBuilder};
pub use error::{Cause, Error};
pub use generated::types::{DbConfig, DbSetting};
pub use qluster_consensus::model;
#[cfg(feature = "readonly")]
pub use readonly_set::ReadonlySet;
pub use reqwest;
