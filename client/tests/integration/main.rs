//! The tests of the client and of the command line from outside, in one program, which is linked once.
//!
//! Tests run each in a process of its own (`cargo nextest`) or in threads of one (`cargo test`). So a test changes nothing
//! that the whole process shares, such as the environment or the working directory, and listens on free ports.
//!
//! Two are programs of their own. `generated` writes the client's code also while these tests, which use that code, do not
//! compile. `dependencies` needs nothing of the client.

// clippy.toml allows it in tests, but not in the functions that tests share.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "cli")]
mod cli;
mod cluster;
#[cfg(feature = "readonly")]
mod readonly;
#[cfg(any(feature = "cli", feature = "readonly"))]
mod support;
#[cfg(feature = "tls")]
mod tls;
