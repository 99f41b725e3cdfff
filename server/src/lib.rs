//! The daemon beside every PostgreSQL server of a qluster cluster.
//!
//! # Layout
//!
//! - [`api`]: the REST API: its trait, its handlers and their context, its codes, its description, and the checks of load
//!   balancers.
//! - [`security`]: who may do what: tokens, the cluster's secret, TLS.
//! - [`peer`]: the channel between nodes.
//! - [`database`]: PostgreSQL, as consensus directs it. [`guard`]: the process that ends it if the daemon cannot.
//! - [`formats`]: PostgreSQL's text and binary formats. [`os`]: the machine's side.
//! - `statements`: finds out which statements do not write; left out without the feature `readonly-statements`.
//! - [`inspect`]: what the store of a node that does not run holds.
//! - [`metrics`]: what Prometheus reads. [`page`]: the status page, served at `/`. [`site`]: the documentation, served at
//!   `/docs`. [`report`]: errors and events as text.
//! - [`start`]: how a node starts: its settings, becoming a member, going on alone, systemd.
//! - [`daemon`]: all of that, put together. `tasks`: the tasks that it runs and watches.
//! - `faults`: switches for tests, in a program of their own.

#![cfg_attr(
    not(feature = "readonly-statements"),
    allow(dead_code, reason = "the database opens sessions for `statements`, which nothing else uses")
)]

pub mod api;
pub mod daemon;
pub mod database;
#[cfg(feature = "faults")]
mod faults;
pub mod formats;
pub mod guard;
pub mod inspect;
pub mod metrics;
pub mod os;
pub mod page;
pub mod peer;
pub mod report;
pub mod security;
pub mod site;
pub mod start;
#[cfg(feature = "readonly-statements")]
mod statements;
mod tasks;
