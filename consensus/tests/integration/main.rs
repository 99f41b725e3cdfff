//! The tests of the consensus from outside, in one program, which is linked once.
//!
//! Tests run each in a process of its own (`cargo nextest`) or in threads of one (`cargo test`). So a test changes nothing
//! that the whole process shares, such as the environment or the working directory.
//!
//! `sim` is a program of its own: it has a feature and flags that nothing else is built with.

// clippy.toml allows it in tests, but not in the functions that tests share.
#![allow(clippy::unwrap_used)]

mod cluster;
mod disk;
mod store;
mod support;
