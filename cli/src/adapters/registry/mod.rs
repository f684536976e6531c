//! OCI registries: manifests and blobs, there and back, as whoever is logged
//! in. The only module that names the OCI client and the HTTP library under it.

mod challenge;
mod credentials;
mod failure;
mod login;
mod retry;
mod transport;
mod wire;

pub use failure::failed;
pub use login::{Stored, forget, store};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, StatusCode, Url};
use tokio::sync::Mutex;

use crate::error::{Error, RegistryProblem, Result, printable};
use crate::reference::{self, Reference, is_digest};
use credentials::Credential;
use failure::Failure;
pub use transport::Transport;

/// Pieces that an upload is handed over in, so that progress shows.
const PIECE: usize = 64 << 10;
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
    http: reqwest::Client,
    upload: reqwest::Client,
    /// `SCHEME://HOST[:PORT]`.
    base: String,
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
        retry::unless_refused(|| registry.renew(None)).await.map_err(|failure| failure.into_error(reference))?;
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
        let image = oras::Reference::with_tag(reference.registry.clone(), reference.repository.clone(), String::new());
        let mut registry = Self {
            reference: reference.clone(),
            http: spoken.http,
            upload: spoken.upload,
            base: format!("{}://{}", spoken.scheme, image.resolve_registry()),
            credential,
            access,
            challenge: String::new(),
            token: Mutex::default(),
            refused_by_istio: None,
            warnings: Vec::new(),
        };
        // A registry that is away is not waited for: the address may be wrong.
        let ping = format!("{}/v2/", registry.base);
        registry.challenge = retry::unless_refused(|| challenge::ask(&registry.http, &ping)).await.map_err(fail)?;
        if challenge::betrays_logins(&registry.challenge, &registry.base) {
            let cause = "it speaks TLS, and wants logins sent without";
            return Err(failed(reference, RegistryProblem::Protocol, cause));
        }
        registry.refused_by_istio = challenge::refused_by_istio(&registry.challenge);
        registry.warnings.extend(registry.refused_by_istio.clone());
        Ok(registry)
    }

    /// A manifest by tag or digest, of at most `limit` bytes.
    pub async fn manifest(&self, wanted: &str, accept: &[&str], limit: u64) -> Result<Fetched> {
        let url = self.url(&format!("manifests/{wanted}"));
        let ask = || async {
            let response = self.ask(|| Ok(self.http.get(&url).header(ACCEPT, accept.join(", ")))).await?;
            let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let kind = kind.unwrap_or_default().to_owned();
            Ok((wire::bounded(response, limit).await?, kind))
        };
        let (bytes, content_type) = retry::retried(ask).await.map_err(|f| f.into_error(&self.reference))?;
        let digest = reference::digest(&bytes);
        if is_digest(wanted) && wanted != digest {
            let cause = format!("the manifest {wanted} was asked for, {digest} came");
            return Err(failed(&self.reference, RegistryProblem::Digest, cause));
        }
        let content_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
        Ok(Fetched { bytes, digest, content_type })
    }

    /// A blob, which must have this digest and, where the manifest says one, this size.
    pub async fn blob(&self, digest: &str, size: u64, detail: &dyn Fn(&str)) -> Result<Vec<u8>> {
        if !is_digest(digest) {
            let cause = format!("its manifest names a blob `{}`", printable(digest));
            return Err(failed(&self.reference, RegistryProblem::Protocol, cause));
        }
        let url = self.url(&format!("blobs/{digest}"));
        let ask = || async {
            let mut stream = self.ask(|| Ok(self.http.get(&url))).await?.bytes_stream();
            let mut bytes = Vec::new();
            while let Some(piece) = stream.try_next().await? {
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
            let came = reference::digest(&bytes);
            if came != digest {
                let cause = format!("the blob {digest} was asked for, {came} came");
                return Err(Failure::new(RegistryProblem::Digest, cause));
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
        let fail = |failure: Failure| failure.into_error(&self.reference);
        retry::retried(|| self.renew(mount_from)).await.map_err(fail)?;
        let url = self.url(&format!("blobs/{digest}"));
        let is_there = || async {
            match self.ask(|| Ok(self.http.head(&url))).await {
                Ok(_) => Ok(true),
                // An answer without a body says no reason: that to the upload does.
                Err(failure) if matches!(failure.problem, RegistryProblem::NotFound | RegistryProblem::Protocol) => {
                    Ok(false)
                }
                Err(failure) => Err(failure),
            }
        };
        if retry::retried(is_there).await.map_err(fail)? {
            return Ok(Put::Present);
        }
        if let Some(other) = mount_from {
            let query: String = form_urlencoded::Serializer::new(String::new())
                .extend_pairs([("mount", digest), ("from", other)])
                .finish();
            let url = self.url(&format!("blobs/uploads/?{query}"));
            // A registry may answer with an upload instead: then it is sent.
            let answer = self.ask(|| Ok(self.http.post(&url).body(""))).await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::CREATED) {
                return Ok(Put::Mounted);
            }
        }
        retry::retried(|| self.send_blob(digest, &bytes, detail)).await.map_err(fail)?;
        Ok(Put::Sent)
    }

    /// In one request, which every registry takes.
    async fn send_blob(&self, digest: &str, bytes: &Bytes, detail: &dyn Fn(&str)) -> Result<(), Failure> {
        let begun = self.ask(|| Ok(self.http.post(self.url("blobs/uploads/")).body(""))).await?;
        let place = begun.headers().get(LOCATION).and_then(|place| begun.url().join(place.to_str().ok()?).ok());
        let nowhere = || Failure::new(RegistryProblem::Protocol, "it takes an upload and does not say where");
        let mut place: Url = place.ok_or_else(nowhere)?;
        place.query_pairs_mut().append_pair("digest", digest);
        let total = bytes.len() as u64;
        let sent = Arc::new(AtomicU64::new(0));
        let upload = self.ask(|| {
            let (counter, whole) = (Arc::clone(&sent), bytes.clone());
            counter.store(0, Ordering::Relaxed);
            let pieces = (0..whole.len()).step_by(PIECE).map(move |at| {
                let piece = whole.slice(at..(at + PIECE).min(whole.len()));
                counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Ok::<_, std::io::Error>(piece)
            });
            let request = self.upload.put(place.clone()).header(CONTENT_TYPE, "application/octet-stream");
            Ok(request.header(CONTENT_LENGTH, total).body(Body::wrap_stream(stream::iter(pieces))))
        });
        let stalled = async {
            let mut last = (0, Instant::now());
            while last.1.elapsed() < transport::READ {
                tokio::time::sleep(PROGRESS).await;
                let now = sent.load(Ordering::Relaxed);
                detail(&progress("sending", now, total));
                if now != last.0 {
                    last = (now, Instant::now());
                }
            }
        };
        tokio::select! {
            done = upload => done.map(drop),
            () = stalled => {
                let cause = format!("nothing moved for {} seconds", transport::READ.as_secs());
                Err(Failure::new(RegistryProblem::Unreachable, cause).passing())
            }
        }
    }

    pub async fn put_manifest(&self, tag: &str, manifest: &[u8], media_type: &str) -> Result<()> {
        let fail = |failure: Failure| failure.into_error(&self.reference);
        retry::retried(|| self.renew(None)).await.map_err(fail)?;
        let url = self.url(&format!("manifests/{tag}"));
        let put = || self.ask(|| Ok(self.http.put(&url).header(CONTENT_TYPE, media_type).body(manifest.to_vec())));
        retry::retried(put).await.map(drop).map_err(fail)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.base, self.reference.repository)
    }
}

/// Tries a login; false: this registry asks nobody for one.
pub async fn check_login(registry: &str, transport: &Transport, username: &str, password: &str) -> Result<bool> {
    let reference = Reference { registry: registry.to_owned(), repository: "login".into(), tag: None, digest: None };
    let credential = Credential::Basic { username: username.to_owned(), password: password.to_owned() };
    let named = |error: Error| match error {
        Error::Registry { problem, causes, .. } => Error::Registry { reference: registry.to_owned(), problem, causes },
        other => other,
    };
    let there = Registry::connect_as(&reference, transport, Access::Pull, credential).await.map_err(named)?;
    if there.challenge.is_empty() {
        return Ok(false);
    }
    let tried = if challenge::is_bearer(&there.challenge) {
        // Without a scope: which repositories there are to see is another question.
        let ask = || challenge::token(&there.http, &there.challenge, &[], &there.credential);
        retry::unless_refused(ask).await.map(drop)
    } else {
        let ping = format!("{}/v2/", there.base);
        retry::unless_refused(|| there.ask(|| Ok(there.http.get(&ping)))).await.map(drop)
    };
    tried.map(|()| true).map_err(|mut failure| {
        if failure.problem == RegistryProblem::Denied {
            failure.problem = RegistryProblem::Unauthorized;
        }
        named(failure.into_error(&reference))
    })
}

fn progress(what: &str, done: u64, total: u64) -> String {
    format!("{what} {} of {} kB", done / 1000, total.div_ceil(1000))
}
