//! The tests of the daemon from outside, in one program: to link a program with the whole server takes longer than to
//! run most of its tests.
//!
//! Tests run each in a process of its own (`cargo nextest`) or in threads of one (`cargo test`). So a test changes nothing
//! that the whole process shares, such as the environment or the working directory, and listens on free ports.
//!
//! `openapi` is a program of its own: `cargo xtask openapi` has to write the description also while other tests do not
//! compile.

// clippy.toml allows it in tests, but not in the functions that tests share.
#![allow(clippy::unwrap_used)]

mod api;
mod database;
mod guard;
mod hostile;
mod logs;
mod page;
mod peer;
mod recover;
mod security;
mod site;
mod statements;
mod support;
mod systemd;
mod walk;
