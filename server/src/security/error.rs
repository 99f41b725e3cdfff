//! Why credentials cannot be used.

use std::path::PathBuf;

/// Why credentials cannot be used. No text of it holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others could have read a secret, or changed it.
    #[error("{} may be read or changed by others (mode {mode:03o}): `chmod 600` it, and if it was open for long, replace what it holds", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A secret is too short, or malformed.
    #[error("{}, line {line}: {reason}", path.display())]
    Secret {
        /// Which file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file does not hold what it is for.
    #[error("{} holds no {expected}", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
        /// What it is for.
        expected: &'static str,
    },
    /// A file is not in PEM.
    #[error("{} is not a file of {expected} in PEM", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// Why not.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate, key and authorities do not fit together.
    #[error("TLS cannot be set up with {}", path.display())]
    Tls {
        /// The file that does not fit.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
