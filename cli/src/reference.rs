//! Names of images, read as Istio's agent reads them.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::state::hex;

/// Docker Hub, which a reference without a registry means.
pub const HUB: &str = "docker.io";
const REFERENCE_MAX: usize = 1024;

/// `REGISTRY/REPOSITORY[:TAG][@DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host, and port where one is named.
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
}

impl Reference {
    /// With or without `oci://`. The first part is a registry when it holds a
    /// dot or a colon or is `localhost` (google/go-containerregistry
    /// `pkg/name`, which Istio uses).
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::Usage(format!("`{text}` is not an image reference: {why}"));
        let rest = text.strip_prefix("oci://").unwrap_or(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            // First of all, and not quoted: what stands before an `@` may be a password.
            Some(_) => {
                return Err(Error::Usage(
                    "after `@` stands a digest, `sha256:` and 64 digits; credentials do not belong into a reference \
                     (`spctl login`)"
                        .into(),
                ));
            }
            None => (rest, None),
        };
        if rest.contains("://") {
            return Err(bad("write REGISTRY/REPOSITORY:TAG, with or without oci:// before it"));
        }
        if rest.len() > REFERENCE_MAX {
            return Err(bad("it is too long"));
        }
        if rest.contains('?') {
            return Err(bad("registries take no query"));
        }
        let (registry, path) = match rest.split_once('/') {
            Some((first, path)) if is_registry(first) => (first, path),
            _ => (HUB, rest),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("a tag has 1 to 128 letters, digits, `_`, `.` or `-`"));
        }
        let registry = if registry == "index.docker.io" { HUB } else { registry };
        let repository = match (registry, repository.contains('/')) {
            (HUB, false) => format!("library/{repository}"),
            _ => repository.to_owned(),
        };
        if !repository.split('/').all(is_component) {
            return Err(bad("a repository has lower case letters and digits, separated by `.`, `_`, `-` and `/`"));
        }
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Whether the text can only be meant as a reference: it has a scheme, or
    /// begins with what can be a registry and does not end as a module's file.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("oci://")
            || !text.ends_with(".wasm")
                && text.split_once('/').is_some_and(|(first, path)| {
                    is_registry(first) && first != "." && first != ".." && !path.is_empty() && Self::parse(text).is_ok()
                })
    }

    /// What to ask the registry for: the digest where there is one.
    pub fn wanted(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// The same repository at this digest: what never changes.
    pub fn at(&self, digest: &str) -> Self {
        Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() }
    }

    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::Usage(format!("`{tag}` is not a tag: 1 to 128 letters, digits, `_`, `.` or `-`")));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The last part of the repository: what a plugin from it is called.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }

    pub fn host(&self) -> &str {
        host(&self.registry)
    }

    pub fn is_loopback(&self) -> bool {
        is_loopback(self.host())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// A registry's name without its port.
pub fn host(registry: &str) -> &str {
    let bare = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => registry,
    };
    bare.trim_start_matches('[').trim_end_matches(']')
}

pub fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A registry as `spctl login` takes it: a host, and a port where needed.
pub fn registry(text: &str) -> Result<String> {
    let bare =
        text.trim_start_matches("https://").trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    let usable = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
    match bare {
        "index.docker.io" | "registry-1.docker.io" => Ok(HUB.to_owned()),
        _ if usable => Ok(bare.to_owned()),
        _ if text.contains('@') => {
            Err(Error::Usage("a registry is HOST or HOST:PORT; a login is asked for, or comes by `--username`".into()))
        }
        _ => Err(Error::Usage(format!("`{text}` is not a registry: write HOST or HOST:PORT"))),
    }
}

fn is_registry(part: &str) -> bool {
    let shaped = part.contains('.') || part.contains(':') || part == "localhost";
    shaped && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b)) && !part.starts_with('.')
}

fn is_component(part: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(part.bytes().next())
        && edge(part.bytes().last())
        && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && !tag.starts_with(['.', '-'])
}

/// `sha256:…` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Only SHA-256: nothing else is in use, and Istio names files by it.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_registry_repository_tag_and_digest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, registry, repository, wanted) in [
            ("127.0.0.1:5000/demo/p:1", "127.0.0.1:5000", "demo/p", "1"),
            ("oci://localhost:5000/p", "localhost:5000", "p", "latest"),
            ("localhost/p:x", "localhost", "p", "x"),
            ("ghcr.io/o/p_q.r", "ghcr.io", "o/p_q.r", "latest"),
            ("kind-registry/x:1", HUB, "kind-registry/x", "1"),
            ("plugin", HUB, "library/plugin", "latest"),
            ("index.docker.io/o/p", HUB, "o/p", "latest"),
            (&format!("r.io/p:1@{digest}"), "r.io", "p", &digest),
            (&format!("[::1]:5000/p@{digest}"), "[::1]:5000", "p", &digest),
        ] {
            let read = Reference::parse(text).unwrap();
            assert_eq!((&*read.registry, &*read.repository, read.wanted()), (registry, repository, wanted), "{text}");
            assert_eq!(Reference::parse(&read.to_string()).unwrap(), read);
        }
    }

    #[test]
    fn refuses_what_no_registry_would_take() {
        for text in [
            "",
            "https://r.io/p",
            "r.io/",
            "r.io/P",
            "r.io/p:",
            "r.io/p:a b",
            "r.io/../p",
            "r.io/p@sha256:12",
            "r.io//p",
            "user:pass@r.io/p",
            "r.io/p?x=1",
            "r.io/p/",
            "r.io/p:.x",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn does_not_repeat_passwords() {
        for text in ["https://u:s3cret@r.io/p", "u:s3cret@r.io/p?x", "oci://u:s3cret@r.io/p", "u:s3cret@r.io"] {
            let errors = [Reference::parse(text).unwrap_err().to_string(), registry(text).unwrap_err().to_string()];
            assert!(!errors.concat().contains("s3cret"), "{errors:?}");
        }
    }

    #[test]
    fn tells_references_from_paths() {
        for text in ["oci://x/y", "r.io/p:1", "localhost:5000/p", "127.0.0.1:5000/a/b@sha256:00", "[::1]:5000/p"] {
            assert_eq!(Reference::is_meant(text), !text.ends_with(":00"), "{text}");
        }
        for text in ["./p", "../p/q", "p.wasm", "dir/p.wasm", "/tmp/p.wasm", "my.dir/p.wasm", "capture", ".hidden/x"] {
            assert!(!Reference::is_meant(text), "{text}");
        }
    }

    #[test]
    fn knows_loopback_by_its_names() {
        for (registry, loopback) in [
            ("localhost:1", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("10.0.0.1:5000", false),
            ("r.io", false),
        ] {
            assert_eq!(is_loopback(host(registry)), loopback, "{registry}");
        }
    }
}
