//! TLS towards clients: rustls with ring.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::DownstreamTls;
use crate::error::StartError;

/// Reads a listener's certificate and key.
pub(super) fn acceptor(listener: &str, tls: &DownstreamTls) -> Result<TlsAcceptor, StartError> {
    let refused = |why: String| StartError::ListenerTls { listener: listener.to_owned(), why };
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source: io::Error| StartError::ListenerCertificate {
            listener: listener.to_owned(),
            path: path.to_owned(),
            source,
        })
    };
    let chain = CertificateDer::pem_slice_iter(&read(&tls.certificate_chain)?).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(&read(&tls.private_key)?).map_err(|error| refused(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain.map_err(|error| refused(error.to_string()))?, key)
        .map_err(|error| refused(error.to_string()))?;
    config.alpn_protocols = tls.alpn_protocols.iter().map(|name| name.clone().into_bytes()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}
