//! OCI registries: manifests and blobs, there and back, as whoever is logged
//! in. The only module that names the OCI client and the HTTP library under it.

mod challenge;
mod credentials;
mod failure;
mod login;
mod retry;
mod transport;

pub use failure::failed;
pub use login::{Stored, forget, store};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use oras::client::ClientConfig;
use oras::secrets::RegistryAuth;
use oras::{Client, RegistryOperation};
use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::error::{Error, RegistryProblem, Result};
use crate::reference::{Reference, is_digest};
use crate::state::hex;
use credentials::Credential;
use failure::Failure;
pub use transport::Transport;

/// Pieces that an upload is handed over in, so that progress shows.
const PIECE: usize = 64 << 10;
/// An error's body is quoted in a line: more is never read.
const ERROR_BODY_MAX: u64 = 64 << 10;
const PROGRESS: Duration = Duration::from_millis(100);

/// What is to be done there: a push needs other rights than a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Pull,
    Push,
}

/// A repository of a registry that has let us in.
pub struct Registry {
    reference: Reference,
    client: Client,
    http: reqwest::Client,
    scheme: &'static str,
    credential: Credential,
    access: Access,
    /// What it answers strangers.
    challenge: String,
    /// Of a registry with token authentication; they last for minutes.
    token: Mutex<Option<String>>,
    /// Why Istio takes nothing from this registry, whatever the image.
    pub refused_by_istio: Option<String>,
    /// That, and why a login that seems to be there was not used.
    pub warnings: Vec<String>,
}

/// A manifest as it came, its digest verified.
pub struct Fetched {
    pub bytes: Bytes,
    /// `sha256:…`, computed here.
    pub digest: String,
    pub content_type: String,
}

/// What became of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Sent,
    Present,
    Mounted,
}

impl Registry {
    /// Finds out how the registry is spoken to and who we are to it.
    pub async fn connect(reference: &Reference, transport: &Transport, access: Access) -> Result<Self> {
        let found = credentials::find(reference)?;
        let mut registry = Self::connect_as(reference, transport, access, found.credential).await?;
        registry.warnings.extend(found.warning);
        Ok(registry)
    }

    async fn connect_as(
        reference: &Reference,
        transport: &Transport,
        access: Access,
        credential: Credential,
    ) -> Result<Self> {
        let fail = |failure: Failure| failure.into_error(reference);
        let spoken = transport.of(reference).await.map_err(fail)?;
        let mut registry = Self {
            reference: reference.clone(),
            client: Client::try_from(spoken.client).map_err(|e| fail(e.into()))?,
            http: spoken.http,
            scheme: spoken.scheme,
            credential,
            access,
            challenge: String::new(),
            token: Mutex::default(),
            refused_by_istio: None,
            warnings: Vec::new(),
        };
        // A registry that is away is not waited for: the address may be wrong.
        let ping = format!("{}://{}/v2/", registry.scheme, registry.image("latest").resolve_registry());
        registry.challenge = retry::unless_refused(|| challenge::ask(&registry.http, &ping)).await.map_err(fail)?;
        registry.refused_by_istio = challenge::refused_by_istio(&registry.challenge);
        registry.warnings.extend(registry.refused_by_istio.clone());
        let token = retry::unless_refused(|| registry.authorize()).await.map_err(fail)?;
        registry.token = Mutex::new(token);
        Ok(registry)
    }

    /// A token, where the registry wants one.
    async fn authorize(&self) -> Result<Option<String>, Failure> {
        let (operation, rights) = match self.access {
            Access::Pull => (RegistryOperation::Pull, "pull"),
            Access::Push => (RegistryOperation::Push, "pull,push"),
        };
        let auth = match &self.credential {
            Credential::Anonymous => RegistryAuth::Anonymous,
            Credential::Basic { username, password } => RegistryAuth::Basic(username.clone(), password.clone()),
            Credential::Bearer(token) => RegistryAuth::Bearer(token.clone()),
            Credential::Identity(token) => {
                let scope = format!("repository:{}:{rights}", self.reference.repository);
                RegistryAuth::Bearer(challenge::exchange(&self.http, &self.challenge, &scope, token).await?)
            }
        };
        let token = self.client.auth(&self.image(self.reference.wanted()), &auth, operation).await?;
        if token.as_ref().is_some_and(|token| !token.bytes().all(|b| (0x21..=0x7e).contains(&b))) {
            return Err(Failure::new(RegistryProblem::Protocol, "its token holds characters that no header may"));
        }
        Ok(token)
    }

    /// A manifest by tag or digest, of at most `limit` bytes.
    pub async fn manifest(&self, wanted: &str, accept: &[&str], limit: u64) -> Result<Fetched> {
        let url = self.url(&format!("manifests/{wanted}"));
        let ask = || async {
            let token = self.token.lock().await.clone();
            match self.get(&url, accept, limit, token.as_deref()).await {
                // It may have run out meanwhile.
                Err(failure) if failure.problem == RegistryProblem::Unauthorized && token.is_some() => {
                    let fresh = self.authorize().await?;
                    let answer = self.get(&url, accept, limit, fresh.as_deref()).await;
                    *self.token.lock().await = fresh;
                    answer
                }
                other => other,
            }
        };
        let (bytes, content_type) = retry::retried(ask).await.map_err(|f| f.into_error(&self.reference))?;
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        if is_digest(wanted) && wanted != digest {
            let cause = format!("the manifest {wanted} was asked for, {digest} came");
            return Err(failed(&self.reference, RegistryProblem::Digest, cause));
        }
        let content_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
        Ok(Fetched { bytes, digest, content_type })
    }

    /// The body of an answer and its type.
    async fn get(
        &self,
        url: &str,
        accept: &[&str],
        limit: u64,
        token: Option<&str>,
    ) -> Result<(Bytes, String), Failure> {
        let request = self.http.get(url).header(ACCEPT, accept.join(", "));
        let request = match (token, &self.credential) {
            (Some(token), _) => request.bearer_auth(token),
            (None, Credential::Basic { username, password }) => request.basic_auth(username, Some(password)),
            _ => request,
        };
        let response = request.send().await?;
        let status = response.status();
        let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let (content_type, retry_after) = (header(CONTENT_TYPE), header(RETRY_AFTER));
        let body = bounded(response, if status.is_success() { limit } else { ERROR_BODY_MAX }).await;
        if !status.is_success() {
            let body = body.unwrap_or_default();
            return Err(Failure::of_status(status.as_u16(), &body).after(retry_after.parse().ok()));
        }
        Ok((body?, content_type))
    }

    /// A blob, which must have this digest and, where the manifest says one, this size.
    pub async fn blob(&self, digest: &str, size: u64, detail: &dyn Fn(&str)) -> Result<Vec<u8>> {
        if !is_digest(digest) {
            let cause = format!("its manifest names a blob `{}`", digest.escape_debug());
            return Err(failed(&self.reference, RegistryProblem::Protocol, cause));
        }
        let image = self.image(self.reference.wanted());
        let ask = || async {
            let mut stream = self.client.pull_blob_stream(&image, digest).await?.stream;
            let mut bytes = Vec::new();
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                if (bytes.len() + piece.len()) as u64 > size {
                    let cause = format!("the blob {digest} has more than the {size} bytes that its manifest says");
                    return Err(Failure::new(RegistryProblem::Digest, cause));
                }
                bytes.extend_from_slice(&piece);
                detail(&progress("receiving", bytes.len() as u64, size));
            }
            if (bytes.len() as u64) < size {
                let cause = format!("the blob {digest} ended after {} of {size} bytes", bytes.len());
                return Err(Failure::new(RegistryProblem::Truncated, cause).passing());
            }
            Ok(bytes)
        };
        retry::retried(ask).await.map_err(|failure| failure.into_error(&self.reference))
    }

    /// Sends a blob unless it is there; from another repository of the same
    /// registry it is mounted if that works.
    pub async fn put_blob(
        &self,
        digest: &str,
        bytes: Bytes,
        mount_from: Option<&str>,
        detail: &dyn Fn(&str),
    ) -> Result<Put> {
        let image = self.image(self.reference.wanted());
        let fail = |failure: Failure| failure.into_error(&self.reference);
        if retry::retried(|| async { Ok(self.client.blob_exists(&image, digest).await?) }).await.map_err(fail)? {
            return Ok(Put::Present);
        }
        if let Some(other) = mount_from {
            let source = oras::Reference::with_tag(self.reference.registry.clone(), other.to_owned(), "latest".into());
            // A registry may answer with an upload instead: then it is sent.
            if self.client.mount_blob(&image, &source, digest).await.is_ok() {
                return Ok(Put::Mounted);
            }
        }
        let total = bytes.len() as u64;
        let send = || async {
            let sent = Arc::new(AtomicU64::new(0));
            let counter = Arc::clone(&sent);
            let whole = bytes.clone();
            let pieces = (0..whole.len()).step_by(PIECE).map(move |at| {
                let piece = whole.slice(at..(at + PIECE).min(whole.len()));
                counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Ok(piece)
            });
            let upload = self.client.push_blob_stream(&image, stream::iter(pieces), digest, Some(total));
            let ticks = async {
                loop {
                    tokio::time::sleep(PROGRESS).await;
                    detail(&progress("sending", sent.load(Ordering::Relaxed), total));
                }
            };
            tokio::select! {
                done = upload => done.map(drop).map_err(Failure::from),
                () = ticks => Ok(()),
            }
        };
        retry::retried(send).await.map_err(fail)?;
        Ok(Put::Sent)
    }

    pub async fn put_manifest(&self, tag: &str, manifest: &[u8], media_type: &str) -> Result<()> {
        let image = self.image(tag);
        let kind = http::HeaderValue::from_str(media_type).map_err(|e| Error::Protocol(e.to_string()))?;
        retry::retried(|| async {
            Ok(self.client.push_manifest_raw(&image, manifest.to_vec(), kind.clone()).await.map(drop)?)
        })
        .await
        .map_err(|failure| failure.into_error(&self.reference))
    }

    fn image(&self, wanted: &str) -> oras::Reference {
        let Reference { registry, repository, .. } = self.reference.clone();
        if is_digest(wanted) {
            oras::Reference::with_digest(registry, repository, wanted.to_owned())
        } else {
            oras::Reference::with_tag(registry, repository, wanted.to_owned())
        }
    }

    fn url(&self, path: &str) -> String {
        let image = self.image("latest");
        format!("{}://{}/v2/{}/{path}", self.scheme, image.resolve_registry(), self.reference.repository)
    }
}

/// Whether the registry takes this login; asked by a manifest that cannot be.
pub async fn check_login(registry: &str, transport: &Transport, username: &str, password: &str) -> Result<()> {
    let reference = Reference {
        registry: registry.to_owned(),
        repository: "spctl/login".into(),
        tag: Some("none".into()),
        digest: None,
    };
    let credential = Credential::Basic { username: username.to_owned(), password: password.to_owned() };
    let named = |error: Error| match error {
        Error::Registry { problem, causes, .. } => Error::Registry { reference: registry.to_owned(), problem, causes },
        other => other,
    };
    let there = Registry::connect_as(&reference, transport, Access::Pull, credential).await.map_err(named)?;
    match there.manifest("none", &[], ERROR_BODY_MAX).await {
        // Known, but without rights to a repository that nobody has.
        Ok(_) | Err(Error::Registry { problem: RegistryProblem::NotFound | RegistryProblem::Denied, .. }) => Ok(()),
        Err(error) => Err(named(error)),
    }
}

/// The body of an answer, of at most `limit` bytes.
async fn bounded(response: reqwest::Response, limit: u64) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(piece) = stream.try_next().await? {
        if (bytes.len() + piece.len()) as u64 > limit {
            return Err(Failure::new(RegistryProblem::TooLarge, format!("an answer of more than {limit} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}

fn progress(what: &str, done: u64, total: u64) -> String {
    format!("{what} {} of {} kB", done / 1000, total.div_ceil(1000))
}

/// The client's settings that never differ.
fn client_config() -> ClientConfig {
    ClientConfig {
        // One request a blob, which every registry takes.
        use_monolithic_push: true,
        user_agent: concat!("spctl/", env!("CARGO_PKG_VERSION")),
        connect_timeout: Some(transport::CONNECT),
        read_timeout: Some(transport::READ),
        ..ClientConfig::default()
    }
}
