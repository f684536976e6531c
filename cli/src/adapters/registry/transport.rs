//! How a registry is reached: plain or TLS, whom to trust, through which proxy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::failure::Failure;
use crate::adapters::tls;
use crate::error::RegistryProblem;
use crate::reference::Reference;

pub(super) const CONNECT: Duration = Duration::from_secs(15);
/// The longest silence in the middle of an answer.
pub(super) const READ: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(5);

/// What the user says about the way to registries.
#[derive(Debug, Clone, Default)]
pub struct Transport {
    pub plain_http: bool,
    /// Certificates trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// A registry's way of being spoken to.
pub(super) struct Spoken {
    pub(super) scheme: &'static str,
    pub(super) http: reqwest::Client,
    /// Without a limit to the silence before an answer, which for the HTTP
    /// library begins before the body is sent.
    pub(super) upload: reqwest::Client,
}

impl Transport {
    pub(super) async fn of(&self, reference: &Reference) -> Result<Spoken, Failure> {
        // One crypto library in the process; a second call changes nothing.
        let _ = ring::default_provider().install_default();
        let plain = self.plain_http || (reference.is_loopback() && !speaks_tls(&reference.registry).await?);
        let certificates = self.certificates(&reference.registry)?;
        let proxies = Proxies::of(reference, |name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        let builder = || -> Result<reqwest::ClientBuilder, Failure> {
            let mut http = reqwest::Client::builder()
                .user_agent(concat!("spctl/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT)
                .tls_certs_merge(certificates.iter().filter_map(|der| reqwest::Certificate::from_der(der).ok()));
            let none = || reqwest::NoProxy::from_string(&proxies.none);
            if let Some(url) = &proxies.https {
                http = http.proxy(reqwest::Proxy::https(url)?.no_proxy(none()));
            }
            if let Some(url) = &proxies.http {
                http = http.proxy(reqwest::Proxy::http(url)?.no_proxy(none()));
            }
            Ok(http)
        };
        Ok(Spoken {
            scheme: if plain { "http" } else { "https" },
            http: builder()?.read_timeout(READ).build()?,
            upload: builder()?.build()?,
        })
    }

    /// The file that was named, and what Docker and Podman keep for this registry.
    fn certificates(&self, registry: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
        let mut files: Vec<PathBuf> = self.ca_file.iter().cloned().collect();
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/containers/certs.d"));
        let system = ["/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from);
        for directory in system.into_iter().chain(home) {
            let Ok(entries) = std::fs::read_dir(directory.join(registry)) else { continue };
            files.extend(entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "crt")));
        }
        let mut all = Vec::new();
        for file in files {
            let bad = |why: String| Failure::new(RegistryProblem::Tls, format!("`{}`: {why}", file.display()));
            let pem = std::fs::read(&file).map_err(|e| bad(e.to_string()))?;
            let before = all.len();
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                all.push(certificate.map_err(|e| bad(e.to_string()))?);
            }
            if all.len() == before {
                return Err(bad("it holds no certificate (PEM)".into()));
            }
        }
        Ok(all)
    }
}

/// Registries on loopback are mostly plain; one with TLS is found out.
async fn speaks_tls(registry: &str) -> Result<bool, Failure> {
    let address = if registry.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        registry.to_owned()
    } else {
        return Ok(true);
    };
    let probe = async { Ok::<_, std::io::Error>(tls::is_spoken(TcpStream::connect(address).await?).await) };
    match tokio::time::timeout(PROBE, probe).await {
        Ok(spoken) => Ok(spoken?),
        Err(_) => Ok(true),
    }
}

/// The proxy variables, as curl and Go read them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Proxies {
    http: Option<String>,
    https: Option<String>,
    none: String,
}

impl Proxies {
    fn of(reference: &Reference, variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |upper: &str| variable(upper).or_else(|| variable(&upper.to_lowercase()));
        let all = either("ALL_PROXY");
        // Loopback is never another machine's.
        let mut none = either("NO_PROXY").unwrap_or_default();
        if reference.is_loopback() {
            none = format!("{none},{}", reference.host());
        }
        Self {
            http: either("HTTP_PROXY").or_else(|| all.clone()),
            https: either("HTTPS_PROXY").or(all),
            none: none.trim_start_matches(',').to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_come_from_either_case_and_never_stand_before_loopback() {
        let set = |name: &str| match name {
            "https_proxy" => Some("http://p:1".to_owned()),
            "NO_PROXY" => Some("corp.example".to_owned()),
            _ => None,
        };
        let near = Proxies::of(&Reference::parse("127.0.0.1:5000/p").unwrap(), set);
        assert_eq!((near.https.as_deref(), near.http), (Some("http://p:1"), None));
        assert_eq!(near.none, "corp.example,127.0.0.1");
        assert_eq!(Proxies::of(&Reference::parse("r.io/p").unwrap(), set).none, "corp.example");
    }
}
