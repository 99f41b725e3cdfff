//! The certificates for `https`: of the authorities to trust, and of the caller.

use reqwest::{Certificate, ClientBuilder, Identity};

use crate::Error;

/// The certificates that were given, in PEM.
#[derive(Default)]
pub(crate) struct Tls {
    /// `None`: trust the platform's authorities.
    pub(crate) authorities: Option<Vec<u8>>,
    /// The caller's certificate and key.
    pub(crate) identity: Option<Vec<u8>>,
}

impl Tls {
    pub(crate) fn apply(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, Error> {
        let failed = |what| move |source| Error::Certificate { what, source };
        if let Some(pem) = &self.authorities {
            let what = "the certificates of the authorities";
            builder = builder.tls_certs_only(Certificate::from_pem_bundle(pem).map_err(failed(what))?);
        }
        if let Some(pem) = &self.identity {
            let what = "the certificate and key of the client";
            builder = builder.identity(Identity::from_pem(pem).map_err(failed(what))?);
        }
        Ok(builder)
    }
}
