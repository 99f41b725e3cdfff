//! Certificates, and the rustls configurations made from them.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::error::SecurityError;
use super::file;
use super::settings::TlsSettings;

/// The TLS configurations of this node.
#[derive(Debug)]
pub struct Tls {
    /// For serving the API, and peers that dial this node.
    pub server: ServerConfig,
    /// For connecting to other nodes. It shows them this node's own certificate if they ask for one.
    pub client: Arc<ClientConfig>,
    chain: Vec<CertificateDer<'static>>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Tls {
    pub(super) fn read(settings: &TlsSettings) -> Result<Self, SecurityError> {
        let TlsSettings { cert, key, ca, client_ca } = settings;
        let chain = certificates(cert)?;
        let secret = private_key(key)?;
        let roots = Arc::new(authorities(ca)?);

        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider());
        let verifier = verifier.build().map_err(|source| failed(ca, source))?;
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(|source| failed(cert, source))?;
        let mut client = builder
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), secret.clone_key())
            .map_err(|source| failed(key, source))?;
        client.alpn_protocols = vec![b"http/1.1".to_vec()];

        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(|source| failed(cert, source))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(path)?), provider());
                builder.with_client_cert_verifier(verifier.build().map_err(|source| failed(path, source))?)
            }
        };
        let mut server = builder.with_single_cert(chain.clone(), secret).map_err(|source| failed(key, source))?;
        // Not HTTP/2: there, a request that is refused before its body was read ends with a reset of its stream, and the
        // curl of Debian 12 then loses the answer (its error 92).
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { server, client: Arc::new(client), chain, verifier })
    }

    /// Why other nodes, which dial `ip`, will refuse this certificate; None if they will accept it.
    pub(super) fn fault(&self, ip: IpAddr) -> Option<String> {
        let (own, others) = self.chain.split_first()?;
        let name = ServerName::IpAddress(ip.into());
        let verified = self.verifier.verify_server_cert(own, others, &name, &[], UnixTime::now());
        verified.err().map(|error| error.to_string())
    }
}

/// Named each time, since a program with two providers has no default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn failed(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> SecurityError {
    SecurityError::Tls { path: path.to_owned(), source: Box::new(source) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let expected = "certificates";
    let bytes = file::public(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|source| SecurityError::Pem { path: path.to_owned(), expected, source })?;
    match found.is_empty() {
        true => Err(SecurityError::Empty { path: path.to_owned(), expected: "certificate" }),
        false => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, SecurityError> {
    let bytes = file::private(path)?;
    let expected = "a private key";
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|source| SecurityError::Pem {
        path: path.to_owned(),
        expected,
        source,
    })
}

fn authorities(path: &Path) -> Result<RootCertStore, SecurityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| failed(path, source))?;
    }
    Ok(roots)
}
