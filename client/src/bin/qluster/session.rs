//! What a command needs: the client of the cluster, and the output.

use std::path::Path;
use std::time::Duration;

use qluster_client::model::{ClusterMap, Node, NodeId};
use qluster_client::reqwest::{Certificate, Identity};
use qluster_client::{ClusterClient, Error};

use crate::contexts::Context;
use crate::failure::Failure;
use crate::output::Output;

/// How long a read is tried by default. A healthy cluster answers at once.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a change is tried by default. Before a hand-over, the primary writes its dirty buffers to disk.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a command needs.
pub(crate) struct Session {
    pub(crate) cluster: ClusterClient,
    pub(crate) out: Output,
    /// Whether `--yes` was given: no confirmation is needed.
    pub(crate) yes: bool,
}

impl Session {
    pub(crate) fn new(context: Context, changes: bool, out: Output, yes: bool) -> Result<Self, Failure> {
        let timeout =
            context.timeout.map_or(if changes { CHANGE_TIMEOUT } else { READ_TIMEOUT }, |timeout| timeout.get());
        let mut builder = ClusterClient::builder(&context.addresses).deadline(timeout);
        if let Some(file) = &context.token_file {
            builder = builder.token(token(file)?);
        }
        let trusted = context.ca_file.as_deref().map(certificates).transpose()?;
        let identity = match (&context.cert_file, &context.key_file) {
            (Some(cert), Some(key)) => Some(identity(cert, key)?),
            (None, None) => None,
            _ => {
                let message = "only one of `cert-file` and `key-file` is given";
                return Err(Failure::usage(message, "a certificate needs its key: give both, or neither"));
            }
        };
        let builder = builder.http(move |mut http| {
            if let Some(trusted) = &trusted {
                http = http.tls_certs_only(trusted.clone());
            }
            if let Some(identity) = &identity {
                http = http.identity(identity.clone());
            }
            http
        });
        Ok(Self { cluster: builder.build()?, out, yes })
    }
}

/// A node of the map.
pub(crate) fn node(map: &ClusterMap, id: NodeId) -> Result<&Node, Failure> {
    map.nodes.get(&id).ok_or_else(|| {
        let ids: Vec<_> = map.nodes.keys().map(NodeId::to_string).collect();
        Failure::refused(format!("node {id} is not part of the cluster"), format!("the nodes are: {}", ids.join(", ")))
    })
}

fn token(file: &Path) -> Result<String, Failure> {
    let text = read(file)?;
    // Nodes read the file in the same way: while a token is replaced it has two, and the new one is first.
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .next()
        .map(str::to_owned)
        .ok_or_else(|| Failure::usage(format!("{} has no token", file.display()), "expected a line with a token"))
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, Failure> {
    let found = Certificate::from_pem_bundle(&read(file)?).map_err(Error::Setup)?;
    if found.is_empty() {
        let hint = "expected PEM: -----BEGIN CERTIFICATE-----";
        return Err(Failure::usage(format!("{} holds no certificate", file.display()), hint));
    }
    Ok(found)
}

fn identity(cert: &Path, key: &Path) -> Result<Identity, Failure> {
    let mut pem = read(cert)?;
    pem.push(b'\n');
    pem.extend(read(key)?);
    Identity::from_pem(&pem).map_err(|error| {
        let files = format!("{} and {}", cert.display(), key.display());
        Failure::usage(format!("{files} are not a certificate and its key: {error}"), "both files must be PEM")
    })
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|source| Failure::file(format!("read {}", file.display()), source))
}
