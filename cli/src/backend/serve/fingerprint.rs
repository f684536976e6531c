//! What two requests must have in common for one recorded answer to serve both.

use sha2::{Digest as _, Sha256};
use spctl_plugin::wire::known_method;

use crate::exchange::{Body, Exchange};

/// Method, host, path and sorted query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint {
    pub method: String,
    /// Lower case, without the scheme's own port.
    pub host: String,
    pub path: String,
    query: String,
}

/// The body of a request, as far as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyKey {
    None,
    /// Of the bytes that were kept, with the number that passed.
    Digest([u8; 32], u64),
    /// There is one that nobody has seen: it fits any.
    Unseen,
}

impl Fingerprint {
    pub(super) fn of(exchange: &Exchange) -> Self {
        let (url, method) = (exchange.summary.url.as_str(), &exchange.summary.method);
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let own_port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
        let authority = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
        pairs.sort_unstable();
        Self {
            // The conventions' name for what they do not know.
            method: if known_method(method) { method.clone() } else { "_OTHER".to_owned() },
            host: authority.strip_suffix(own_port).unwrap_or(&authority).to_owned(),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            query: pairs.join("&"),
        }
    }
}

impl BodyKey {
    pub fn of(body: Option<&Body>) -> Self {
        match body {
            None => Self::None,
            // Left out on purpose: all such bodies look alike.
            Some(body) if body.omitted.is_some() => Self::Unseen,
            Some(body) if body.size == 0 => Self::None,
            Some(body) => Self::Digest(Sha256::digest(body.bytes()).into(), body.size),
        }
    }

    pub fn fits(self, recorded: Self) -> bool {
        self == recorded || self == Self::Unseen || recorded == Self::Unseen
    }
}
