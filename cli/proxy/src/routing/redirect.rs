//! Where a redirect sends a client, and what paths become.

use regex_lite::Regex;
use spctl_host::HeaderList;

use crate::config::{PathRewrite, Redirect, RouteMatch};

/// A rewrite of paths, ready to be made.
pub(super) enum Rewrite {
    Keep,
    Prefix(String),
    Regex { regex: Regex, substitution: String },
}

impl Rewrite {
    pub(super) fn new(rewrite: &PathRewrite) -> Result<Self, String> {
        Ok(match rewrite {
            PathRewrite::Keep => Self::Keep,
            PathRewrite::Prefix(prefix) => Self::Prefix(prefix.clone()),
            PathRewrite::Regex { pattern, substitution } => Self::Regex {
                regex: Regex::new(pattern).map_err(|error| error.to_string())?,
                substitution: groups(substitution),
            },
        })
    }

    /// The whole path with its query as it becomes; None: it stays.
    pub(super) fn path(&self, matched: &RouteMatch, path: &[u8]) -> Option<Vec<u8>> {
        let bare = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
        let (mut rewritten, from) = match self {
            Self::Keep => return None,
            Self::Prefix(prefix) => {
                let matched = match matched {
                    RouteMatch::Prefix(text) | RouteMatch::Path(text) | RouteMatch::PathSeparatedPrefix(text) => {
                        text.len()
                    }
                    RouteMatch::Regex(_) => bare,
                    RouteMatch::Connect => return None,
                };
                (prefix.clone().into_bytes(), matched)
            }
            Self::Regex { regex, substitution } => {
                let text = std::str::from_utf8(&path[..bare]).ok()?;
                (regex.replace_all(text, substitution.as_str()).into_owned().into_bytes(), bare)
            }
        };
        rewritten.extend_from_slice(path.get(from..)?);
        Some(rewritten)
    }
}

/// RE2's `\1` as the regex library has it.
fn groups(substitution: &str) -> String {
    let mut out = String::new();
    let mut chars = substitution.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(digit) if digit.is_ascii_digit() => {
                    out.push_str("${");
                    out.push(digit);
                    out.push('}');
                }
                other => out.extend(other),
            },
            '$' => out.push_str("$$"),
            other => out.push(other),
        }
    }
    out
}

/// The `location` of a redirect. `path` is the request's, rewritten or not.
pub(super) fn location(redirect: &Redirect, headers: &HeaderList, path: &[u8]) -> Vec<u8> {
    let own = headers.get(b":scheme").unwrap_or(b"http");
    let scheme = redirect.scheme.as_ref().map_or(own, String::as_bytes);
    let authority = headers.get(b":authority").unwrap_or_default();
    let mut out = [scheme, b"://"].concat();
    match &redirect.host {
        Some(host) => out.extend_from_slice(host.as_bytes()),
        None if redirect.port.is_some() || scheme != own => {
            let default: &[u8] = if own == b"https" { b":443" } else { b":80" };
            let bare = match redirect.port {
                Some(_) => without_port(authority),
                None => authority.strip_suffix(default).unwrap_or(authority),
            };
            out.extend_from_slice(bare);
        }
        None => out.extend_from_slice(authority),
    }
    if let Some(port) = redirect.port {
        out.extend_from_slice(format!(":{port}").as_bytes());
    }
    let query = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
    match &redirect.path {
        Some(fixed) => {
            out.extend_from_slice(fixed.as_bytes());
            if !redirect.strip_query && !fixed.contains('?') {
                out.extend_from_slice(&path[query..]);
            }
        }
        None if redirect.strip_query => out.extend_from_slice(&path[..query]),
        None => out.extend_from_slice(path),
    }
    out
}

fn without_port(authority: &[u8]) -> &[u8] {
    let behind = authority.iter().rposition(|byte| *byte == b']').unwrap_or(0);
    authority[behind..].iter().position(|byte| *byte == b':').map_or(authority, |at| &authority[..behind + at])
}
