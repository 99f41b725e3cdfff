//! The daemon beside every PostgreSQL server of a qluster cluster.
//!
//! # Layout
//!
//! - [`api`], [`body`], [`handlers`], [`status`], [`openapi`]: the REST API, how its bodies are read, what its
//!   operations do, what its codes mean, and its description. [`check`]: what load balancers ask.
//! - [`peer`]: the channel on which the nodes talk to each other.
//! - `statements`: the statements that do not write; `etag`: which list of them a caller has.
//! - [`database`]: PostgreSQL, as consensus directs it. [`guard`]: the process that ends it where the agent cannot.
//! - [`config`], [`daemon`], `known`, [`join`], [`limits`]: the node's settings, its start and end, whether it starts as
//!   the cluster knows it, how it becomes a member, and how much of the system it may use.
//! - [`security`]: who may do what: tokens, the cluster's secret, TLS.
//! - [`recover`]: how a node goes on alone where the others are gone for good.
//! - [`report`], [`metrics`], [`page`], [`site`]: what is told to people, and to Prometheus; the status page, served at
//!   `/`; the documentation, served at `/docs`.
//! - `systemd`: what it is told of the daemon.
//! - `faults`: switches for tests, in a program of their own.

pub mod api;
pub mod body;
pub mod check;
pub mod config;
pub mod daemon;
pub mod database;
pub mod etag;
#[cfg(feature = "faults")]
mod faults;
pub mod guard;
pub mod handlers;
pub mod join;
mod known;
pub mod limits;
pub mod metrics;
pub mod openapi;
pub mod page;
pub mod peer;
pub mod recover;
pub mod report;
pub mod security;
pub mod site;
mod statements;
pub mod status;
mod systemd;
