//! TLS to servers: rustls with ring, the system's roots or a file's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, Error, RootCertStore};

/// Whom to trust to be whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The name that the certificate must be for.
    pub name: String,
    /// Certificates to trust; none: the system's.
    pub ca_file: Option<PathBuf>,
}

impl Tls {
    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots(self.ca_file.as_deref())?)
            .with_no_client_auth();
        let name = ServerName::try_from(self.name.clone()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

/// Whether a server speaks TLS at all, whatever its certificate.
pub(super) async fn is_spoken(stream: TcpStream) -> bool {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|config| config.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    let (Ok(config), Ok(name)) = (config, ServerName::try_from("localhost")) else { return true };
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(_) => true,
        // Its certificate is not trusted, which is the point: it has one.
        Err(error) => error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>())
            .is_some_and(|error| !matches!(error, Error::InvalidMessage(_))),
    }
}

fn roots(ca_file: Option<&Path>) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let pem = std::fs::read(path).map_err(|e| io::Error::other(format!("`{}`: {e}", path.display())))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() { Err(io::Error::other("no certificate to trust was found")) } else { Ok(roots) }
}
