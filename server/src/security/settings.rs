//! Where credentials are, and when there must be some.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use serde::Deserialize;

/// The credentials that the command line and the environment name. They override the file.
#[derive(Args, Clone, Debug, Default)]
pub struct SecurityOverrides {
    /// File with the secret that the nodes of a cluster share
    #[arg(long, global = true, env = "QLUSTER_PEER_SECRET_FILE", value_name = "FILE")]
    pub peer_secret_file: Option<PathBuf>,
    /// File with the token for changes
    #[arg(long, global = true, env = "QLUSTER_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// File with the token for reading
    #[arg(long, global = true, env = "QLUSTER_READ_TOKEN_FILE", value_name = "FILE")]
    pub read_token_file: Option<PathBuf>,
    /// This node's certificate and the intermediate ones up to its authority, in PEM
    #[arg(long, global = true, env = "QLUSTER_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, global = true, env = "QLUSTER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Certificates of the authorities that issue the nodes' certificates, in PEM
    #[arg(long, global = true, env = "QLUSTER_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Certificates of the authorities that issue clients' certificates; with it, every client needs one
    #[arg(long, global = true, env = "QLUSTER_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Serve an address that is not loopback without tokens, or without a secret: whoever reaches it can do anything to
    /// the cluster
    #[arg(long, global = true, env = "QLUSTER_ALLOW_UNAUTHENTICATED_NETWORK", value_parser = FalseyValueParser::new())]
    pub allow_unauthenticated_network: bool,
}

/// The section `security` of the node's file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct SecurityFile {
    peer_secret_file: Option<PathBuf>,
    admin_token_file: Option<PathBuf>,
    read_token_file: Option<PathBuf>,
    tls: TlsFile,
    allow_unauthenticated_network: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct TlsFile {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    client_ca: Option<PathBuf>,
}

/// Where a node's credentials are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecuritySettings {
    /// The cluster's secret.
    pub peer_secret_file: Option<PathBuf>,
    /// Tokens for changes.
    pub admin_token_file: Option<PathBuf>,
    /// Tokens for reading.
    pub read_token_file: Option<PathBuf>,
    /// TLS; None if the node does not use it.
    pub tls: Option<TlsSettings>,
    /// Whether the node serves more than loopback even without tokens, or without a secret.
    pub allow_unauthenticated_network: bool,
}

/// The files that TLS needs.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsSettings {
    /// The node's certificate and the intermediate ones up to its authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of the nodes' certificates.
    pub ca: PathBuf,
    /// The authorities of clients' certificates; None if clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

impl SecuritySettings {
    /// The settings of the file, overridden.
    ///
    /// # Errors
    ///
    /// What is wrong with them, in a sentence.
    pub(crate) fn combine(file: SecurityFile, overrides: &SecurityOverrides) -> Result<Self, String> {
        let or = |given: &Option<PathBuf>, file| given.clone().or(file);
        let SecurityFile { peer_secret_file, admin_token_file, read_token_file, tls, allow_unauthenticated_network } =
            file;
        let cert = or(&overrides.tls_cert, tls.cert);
        let key = or(&overrides.tls_key, tls.key);
        let ca = or(&overrides.tls_ca, tls.ca);
        let client_ca = or(&overrides.tls_client_ca, tls.client_ca);
        let tls = match (cert, key, ca) {
            (Some(cert), Some(key), Some(ca)) => Some(TlsSettings { cert, key, ca, client_ca }),
            (None, None, None) if client_ca.is_none() => None,
            _ => return Err("TLS needs all of `cert`, `key` and `ca` (--tls-cert, --tls-key and --tls-ca)".into()),
        };
        let settings = Self {
            peer_secret_file: or(&overrides.peer_secret_file, peer_secret_file),
            admin_token_file: or(&overrides.admin_token_file, admin_token_file),
            read_token_file: or(&overrides.read_token_file, read_token_file),
            tls,
            allow_unauthenticated_network: overrides.allow_unauthenticated_network || allow_unauthenticated_network,
        };
        if settings.read_token_file.is_some() && settings.admin_token_file.is_none() {
            return Err("there is a read-token-file and no admin-token-file: nobody could change anything".into());
        }
        Ok(settings)
    }

    /// Why a node at `ip` must not serve with these settings; None if it may.
    pub(crate) fn forbid(&self, ip: IpAddr, has_database: bool) -> Option<String> {
        if ip.is_loopback() {
            return None;
        }
        let missing: Vec<&str> =
            [("peer-secret-file", &self.peer_secret_file), ("admin-token-file", &self.admin_token_file)]
                .into_iter()
                .filter(|(_, file)| file.is_none())
                .map(|(name, _)| name)
                .collect();
        if missing.is_empty() {
            return None;
        }
        if !self.allow_unauthenticated_network {
            return Some(format!(
                "ip is {ip}, which is not loopback, and there is no {}: whoever reaches this node could do \
                 anything to the cluster. Give it; or, if nobody else reaches this node, give \
                 --allow-unauthenticated-network",
                missing.join(" and no ")
            ));
        }
        (has_database && self.peer_secret_file.is_none()).then(|| {
            format!(
                "ip is {ip}, which is not loopback: standbys of other hosts need a password, which is derived from the \
                 cluster's secret. Give a peer-secret-file"
            )
        })
    }

    /// All files that these settings name.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let tls =
            self.tls.iter().flat_map(|tls| [Some(&tls.cert), Some(&tls.key), Some(&tls.ca), tls.client_ca.as_ref()]);
        let secrets = [&self.peer_secret_file, &self.admin_token_file, &self.read_token_file].map(Option::as_ref);
        secrets.into_iter().chain(tls).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_there_are_credentials_or_somebodys_word() {
        let path = || Some(PathBuf::from("/x"));
        let (secret, tokens, word) = (
            SecuritySettings { peer_secret_file: path(), ..Default::default() },
            SecuritySettings { admin_token_file: path(), ..Default::default() },
            SecuritySettings { allow_unauthenticated_network: true, ..Default::default() },
        );
        let both = SecuritySettings { peer_secret_file: path(), ..tokens.clone() };
        let word_and_secret = SecuritySettings { peer_secret_file: path(), ..word.clone() };
        for (settings, ip, has_database, expected) in [
            (SecuritySettings::default(), "127.0.0.1", true, None),
            (SecuritySettings::default(), "::1", true, None),
            (SecuritySettings::default(), "10.0.0.1", false, Some("no peer-secret-file and no admin-token-file")),
            (secret, "10.0.0.1", false, Some("no admin-token-file:")),
            (tokens, "fd00::1", false, Some("no peer-secret-file:")),
            (both, "10.0.0.1", true, None),
            (word.clone(), "10.0.0.1", false, None),
            (word, "10.0.0.1", true, Some("Give a peer-secret-file")),
            (word_and_secret, "10.0.0.1", true, None),
        ] {
            let forbidden = settings.forbid(ip.parse().unwrap(), has_database);
            match expected {
                None => assert_eq!(forbidden, None),
                Some(text) => assert!(forbidden.as_ref().is_some_and(|why| why.contains(text)), "{forbidden:?}"),
            }
        }
    }

    #[test]
    fn what_is_given_in_part_is_refused() {
        let combine = |yaml: &str| {
            SecuritySettings::combine(serde_norway::from_str(yaml).unwrap(), &SecurityOverrides::default())
        };
        let tls = combine("tls: {cert: /c, key: /k, ca: /a, client-ca: /b}").unwrap().tls.unwrap();
        assert_eq!((tls.ca, tls.client_ca), ("/a".into(), Some("/b".into())));
        assert!(combine("tls: {cert: /c, key: /k}").unwrap_err().contains("all of"));
        assert!(combine("tls: {client-ca: /b}").unwrap_err().contains("all of"));
        assert!(combine("read-token-file: /r").unwrap_err().contains("nobody could change"));
        assert_eq!(combine("tls: {}").unwrap(), SecuritySettings::default());
    }

    #[test]
    fn the_command_line_overrides_the_file() {
        let file = serde_norway::from_str("{peer-secret-file: /a, admin-token-file: /b}").unwrap();
        let overrides = SecurityOverrides { admin_token_file: Some("/c".into()), ..Default::default() };
        let settings = SecuritySettings::combine(file, &overrides).unwrap();
        assert_eq!(settings.files().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), ["/a", "/c"]);
    }
}
