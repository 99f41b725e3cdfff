//! Who may do what: tokens for the API, the cluster's secret for peers, TLS for both.
//!
//! # Layout
//!
//! - `settings`: where the files are, and which must be given if the node serves more than loopback.
//! - `file`: reading secrets, and who else may read them.
//! - `needs`: [`Needs`], the one table of what each operation needs; [`Allowed`](crate::api::Allowed) checks it.
//! - `origin`: pages of other sites, which may ask nothing if no token is needed.
//! - `tokens`: what a token is good for. `throttle`: the authentication throttle, which slows down guessing.
//! - `proof`: how nodes show each other that they know the cluster's secret, and what is derived from it.
//! - `tls`: certificates.
//!
//! All files are read again when they change. If they are of no use then (a key does not fit its certificate, say), that is
//! logged, and what was read before stays in use.

mod error;
mod file;
mod needs;
mod origin;
mod proof;
mod settings;
mod throttle;
mod tls;
mod tokens;

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio::sync::watch;
use uuid::Uuid;

pub use error::SecurityError;
pub use needs::{Needs, needs};
pub(crate) use proof::{Nonce, Proof, Role, Statement, nonce};
pub(crate) use settings::SecurityFile;
pub use settings::{SecurityOverrides, SecuritySettings, TlsSettings};
use throttle::Throttle;
pub use tls::Tls;
pub use tokens::Kind;
use tokens::Tokens;

use crate::os::lock::lock;
use crate::report;

/// How often the files are checked for changes.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The contents of the files.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    tokens: Tokens,
    /// The token that this node shows to others.
    own_token: Option<SecretString>,
    /// The cluster's secrets: all are accepted, and the first is what passwords are derived from.
    secrets: Vec<SecretString>,
    pub(crate) tls: Option<Tls>,
}

/// The credentials that protect a node, as they are now.
pub struct Security {
    settings: SecuritySettings,
    /// How the files were before they were first read.
    stamps: Vec<file::Stamp>,
    ip: IpAddr,
    keys: watch::Sender<Arc<Keys>>,
    wrong_tokens: Mutex<Throttle>,
    wrong_proofs: Mutex<Throttle>,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No token, or none that is known.
    Unauthenticated(&'static str),
    /// The token is not of the kind that this needs.
    Forbidden,
    /// It is sent by a page of another site, and no token shows that this is meant.
    Foreign,
    /// The throttle refuses it: too many wrong tokens came from there.
    TooMany,
    /// A defect: the table does not say what this operation needs.
    Unlisted,
}

impl Security {
    /// Reads the files that `settings` name, for the node at `ip`.
    ///
    /// # Errors
    ///
    /// A file cannot be read, is open to others, or does not hold what it should.
    pub fn load(settings: SecuritySettings, ip: IpAddr) -> Result<Arc<Self>, SecurityError> {
        let stamps = settings.files().map(|path| file::stamp(path)).collect();
        let keys = Keys::read(&settings)?;
        let this = Self {
            settings,
            stamps,
            ip,
            keys: watch::Sender::new(Arc::new(keys)),
            wrong_tokens: Mutex::default(),
            wrong_proofs: Mutex::default(),
        };
        this.warn();
        Ok(Arc::new(this))
    }

    /// No protection, as for a node at a loopback address without settings.
    pub fn none() -> Arc<Self> {
        Arc::new(Self {
            settings: SecuritySettings::default(),
            stamps: Vec::new(),
            ip: IpAddr::from([127, 0, 0, 1]),
            keys: watch::Sender::default(),
            wrong_tokens: Mutex::default(),
            wrong_proofs: Mutex::default(),
        })
    }

    pub(crate) fn keys(&self) -> Arc<Keys> {
        self.keys.borrow().clone()
    }

    /// Whether nodes serve and use the API over TLS. That does not change while the node runs.
    pub fn has_tls(&self) -> bool {
        self.settings.tls.is_some()
    }

    /// The token that this node shows to others; None if it has none.
    pub fn own_token(&self) -> Option<SecretString> {
        self.keys().own_token.clone()
    }

    /// Passwords of the replication role in `cluster`, derived from the cluster's secrets. The first is the one to set.
    pub fn replication_passwords(&self, cluster: Uuid) -> Vec<SecretString> {
        self.keys().secrets.iter().map(|secret| proof::replication_password(secret, cluster)).collect()
    }

    /// Whether peers must know a secret.
    pub fn has_secret(&self) -> bool {
        self.settings.peer_secret_file.is_some()
    }

    /// Proofs for another node that this one knows the secret: one for each secret that it knows.
    pub(crate) fn prove(&self, role: Role, statement: &Statement) -> Vec<Proof> {
        self.keys().secrets.iter().map(|secret| proof::prove(secret, role, statement)).collect()
    }

    /// A proof of this node by the secret that `proofs` are made with; None if this node does not know that secret, or
    /// the throttle refuses `from`.
    pub(crate) fn answer_proofs(&self, from: IpAddr, proofs: &[Proof], statement: &Statement) -> Option<Proof> {
        let now = Instant::now();
        if lock(&self.wrong_proofs).refuses(from, now) {
            return None;
        }
        let keys = self.keys();
        let known = keys.secrets.iter().find(|secret| proof::any_holds(proofs, secret, Role::Dialing, statement));
        match known {
            Some(secret) => Some(proof::prove(secret, Role::Accepting, statement)),
            None => {
                lock(&self.wrong_proofs).count(from, now);
                None
            }
        }
    }

    /// Whether the node that was dialed has proven that it knows a secret of this one.
    pub(crate) fn is_proven(&self, given: Proof, statement: &Statement) -> bool {
        let keys = self.keys();
        keys.secrets.iter().any(|secret| proof::any_holds(&[given], secret, Role::Accepting, statement))
    }

    /// Whether a request with these headers from `from` may use `operation`.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(crate) fn allow(&self, operation: &str, headers: &http::HeaderMap, from: IpAddr) -> Result<(), Refusal> {
        let needed = match needs(operation) {
            None => return Err(Refusal::Unlisted),
            Some(Needs::Nothing | Needs::Secret) => return Ok(()),
            Some(Needs::Token(kind)) => kind,
        };
        let keys = self.keys();
        if keys.tokens.is_empty() {
            return if origin::is_foreign(headers) { Err(Refusal::Foreign) } else { Ok(()) };
        }
        let token = tokens::bearer(headers).map_err(Refusal::Unauthenticated)?;
        let now = Instant::now();
        if lock(&self.wrong_tokens).refuses(from, now) {
            return Err(Refusal::TooMany);
        }
        match keys.tokens.kind(token) {
            None => {
                if lock(&self.wrong_tokens).count(from, now) {
                    tracing::warn!(%from, "requests with a wrong token arrive from this address");
                }
                Err(Refusal::Unauthenticated("this node does not know the token"))
            }
            Some(given) if given < needed => Err(Refusal::Forbidden),
            Some(_) => Ok(()),
        }
    }

    /// Reads the files again whenever they change; never returns. `refresh` gets the TLS settings to use from then on.
    pub async fn follow_changes<R: Future<Output = ()>>(
        self: &Arc<Self>,
        mut refresh: impl FnMut(rustls::ServerConfig) -> R,
    ) -> Infallible {
        let mut trouble = (String::new(), 0);
        let mut seen = self.stamps.clone();
        loop {
            tokio::time::sleep(FILE_CHECK_INTERVAL).await;
            let stamps = self.stamps().await;
            // While files are replaced one after the other, they may not fit together for a moment: a failure is logged
            // only if it stays.
            if stamps == seen && trouble.1 == 0 {
                continue;
            }
            let settings = self.settings.clone();
            match tokio::task::spawn_blocking(move || Keys::read(&settings)).await {
                Ok(Ok(keys)) => {
                    let tls = keys.tls.as_ref().map(|tls| tls.server.clone());
                    self.keys.send_replace(Arc::new(keys));
                    if let Some(tls) = tls {
                        refresh(tls).await;
                    }
                    (seen, trouble) = (stamps, (String::new(), 0));
                    tracing::info!("the files with credentials have changed and are in use");
                    self.warn();
                }
                Ok(Err(error)) => {
                    let error = report::chain(&error);
                    trouble = (error.clone(), if trouble.0 == error { trouble.1 + 1 } else { 1 });
                    if trouble.1 == 2 {
                        tracing::error!(
                            error,
                            "the files with credentials cannot be used: the credentials that were read before stay in use"
                        );
                    }
                }
                // A defect, which ends the daemon; or the runtime ends.
                Err(ended) => {
                    if let Ok(panic) = ended.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
    }

    async fn stamps(&self) -> Vec<file::Stamp> {
        let paths: Vec<_> = self.settings.files().cloned().collect();
        let look = move || paths.iter().map(|path| file::stamp(path)).collect();
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    /// Logs what other nodes, or operators, should know of these credentials.
    fn warn(&self) {
        let keys = self.keys();
        if let Some(error) = keys.tls.as_ref().and_then(|tls| tls.fault(self.ip)) {
            tracing::error!(error, "other nodes will refuse this node's certificate");
        }
        if !self.ip.is_loopback() && keys.tls.is_none() {
            tracing::warn!(
                "without TLS, whoever listens on the network can read tokens, and the traffic between nodes"
            );
        }
    }
}

impl Keys {
    fn read(settings: &SecuritySettings) -> Result<Self, SecurityError> {
        let secrets = |path: &Option<_>| path.as_deref().map_or(Ok(Vec::new()), file::secrets);
        let admin = secrets(&settings.admin_token_file)?;
        let read = secrets(&settings.read_token_file)?;
        Ok(Self {
            own_token: admin.first().cloned(),
            tokens: Tokens::new(&admin, &read),
            secrets: secrets(&settings.peer_secret_file)?,
            tls: settings.tls.as_ref().map(Tls::read).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;

    const ADMIN: &str = "the-administrators-token-0123456789";
    const READ: &str = "the-readers-token-0123456789-0123456789";

    fn written(dir: &std::path::Path, name: &str, text: &str) -> std::path::PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn asked(security: &Security, operation: &str, token: Option<&str>) -> Result<(), Refusal> {
        let mut headers = http::HeaderMap::new();
        if let Some(token) = token {
            headers.insert(http::header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        security.allow(operation, &headers, [10, 0, 0, 9].into())
    }

    fn with_tokens(dir: &std::path::Path) -> Arc<Security> {
        let settings = SecuritySettings {
            admin_token_file: Some(written(dir, "admin", ADMIN)),
            read_token_file: Some(written(dir, "read", READ)),
            peer_secret_file: Some(written(dir, "secret", "the-secret-of-this-cluster-0123456789\n")),
            ..SecuritySettings::default()
        };
        Security::load(settings, [10, 0, 0, 1].into()).unwrap()
    }

    #[test]
    fn a_token_opens_what_its_kind_may_do() {
        let dir = tempfile::tempdir().unwrap();
        let security = with_tokens(dir.path());
        for (operation, token, expected) in [
            ("is_leader", None, Ok(())),
            ("is_leader", Some("wrong"), Ok(())),
            ("map", Some(READ), Ok(())),
            ("map", Some(ADMIN), Ok(())),
            ("config_post", Some(READ), Err(Refusal::Forbidden)),
            ("config_post", Some(ADMIN), Ok(())),
            ("made_up", Some(ADMIN), Err(Refusal::Unlisted)),
        ] {
            assert_eq!(asked(&security, operation, token), expected, "{operation} {token:?}");
        }
        for token in [None, Some("wrong"), Some("")] {
            let refused = asked(&security, "map", token);
            assert!(matches!(refused, Err(Refusal::Unauthenticated(_))), "{token:?}: {refused:?}");
        }
        assert_eq!(asked(&Security::none(), "node_remove", None), Ok(()));
    }

    #[test]
    fn who_guesses_is_made_to_wait() {
        let dir = tempfile::tempdir().unwrap();
        let security = with_tokens(dir.path());
        let mut refused = (0..100).map(|_| asked(&security, "map", Some("wrong")));
        assert!(refused.any(|answer| answer == Err(Refusal::TooMany)));
        assert_eq!(asked(&security, "map", Some(ADMIN)), Err(Refusal::TooMany));
        assert_eq!(asked(&security, "is_leader", None), Ok(()));
    }

    #[test]
    fn nothing_that_is_printed_holds_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let security = with_tokens(dir.path());
        let printed = format!("{:?} {:?}", security.keys(), security.settings);
        for secret in [ADMIN, READ, "the-secret-of-this-cluster"] {
            assert!(!printed.contains(secret), "{printed}");
        }
        let password = security.replication_passwords(Uuid::from_u128(1)).remove(0);
        assert!(!format!("{password:?}").contains(password.expose_secret()));
    }
}
