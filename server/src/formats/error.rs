//! What can go wrong when a text of PostgreSQL is read.

/// A text was not as expected.
#[derive(Debug, thiserror::Error)]
#[error("unexpected {what}: {text}")]
pub struct Error {
    /// What was read.
    pub what: &'static str,
    /// What it said.
    pub text: String,
}
