//! Over `https`: whom the client trusts, and how it is trusted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qluster_client::{Cause, ClusterClient, ClusterClientBuilder, Error};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for this host, and its key.
fn issued(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// A node that says that it leads, to those only that have a certificate of `authority`.
async fn node(authority: &Authority) -> SocketAddr {
    let (cert, key) = issued(authority);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = config.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap_or_default();
            let authorized = String::from_utf8_lossy(&request[..length]).contains("authorization: Bearer a-token");
            let body = format!(
                r#"{{"id": 1, "term": 7, "ip": "127.0.0.1", "api-port": {}, "db-port": null}}"#,
                address.port()
            );
            let status = if authorized { 200 } else { 500 };
            let head = format!(
                "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + &body).as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

fn client(address: SocketAddr) -> ClusterClientBuilder {
    ClusterClient::builder([format!("https://{address}")]).token("a-token").deadline(Duration::from_secs(1))
}

#[tokio::test]
async fn nodes_are_trusted_by_their_authority_and_the_client_by_its_certificate() {
    let (ours, theirs) = (authority(), authority());
    let address = node(&ours).await;
    let (cert, key) = issued(&ours);
    let whole = client(address).ca_certificates(ours.pem()).identity(cert.clone() + &key).build().unwrap();
    assert_eq!(whole.leader().await.unwrap().api_port.get(), address.port());

    let stranger = client(address).ca_certificates(theirs.pem()).identity(cert + &key).build().unwrap();
    let nobody = client(address).ca_certificates(ours.pem()).build().unwrap();
    for client in [stranger, nobody] {
        let error = client.leader().await.unwrap_err();
        assert!(matches!(error.cause(), Some(Cause::Connect(_) | Cause::Lost(_))), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_no_certificate_is_refused_when_the_client_is_made() {
    let address = ([127, 0, 0, 1], 1).into();
    for builder in
        [client(address).identity("no pem"), client(address).ca_certificates("-----BEGIN CERTIFICATE-----\nx")]
    {
        assert!(matches!(builder.build(), Err(Error::Certificate { .. })));
    }
}
