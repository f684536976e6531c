//! Which exchanges are captured: rules and skips, compiled once at configure,
//! decided from headers alone.

use crate::exchange::{Direction, Head};
use crate::names::NameSet;
use crate::scan::{contains, find_byte};
use regex_lite::Regex;
use std::borrow::Cow;

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Capture,
    Skip(Reason),
}

/// Why a request or its response is not captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An exemption rule matched.
    Exempt,
    /// Collection rules exist and none matched.
    NotSelected,
    /// A static resource, by extension or content type.
    Static,
    /// A prefetch or page-data request of a web framework.
    Prefetch,
}

/// The rule that decided: its list and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    Exempt(usize),
    Server(usize),
    Client(usize),
}

/// One pattern: an unanchored, case-sensitive search, as a regular expression.
/// Patterns that need no engine are reduced when they are compiled.
#[derive(Clone, Debug)]
pub enum Pattern {
    Any,
    Contains(String),
    StartsWith(String),
    EndsWith(String),
    Equals(String),
    Regex(Regex),
}

impl Pattern {
    pub fn compile(text: &str) -> Result<Pattern, String> {
        let plain = |s: &str| !s.contains(|c: char| r"\.+*?()|[]{}^$".contains(c));
        let (rest, start) = text.strip_prefix('^').map_or((text, false), |rest| (rest, true));
        let (rest, end) = rest.strip_suffix('$').map_or((rest, false), |rest| (rest, true));
        let (rest, end) = rest.strip_suffix(".*").map_or((rest, end), |rest| (rest, false));
        if rest.is_empty() && !(start && end) {
            return Ok(Pattern::Any);
        }
        if plain(rest) {
            let rest = rest.to_owned();
            return Ok(match (start, end) {
                (true, true) => Pattern::Equals(rest),
                (true, false) => Pattern::StartsWith(rest),
                (false, true) => Pattern::EndsWith(rest),
                (false, false) => Pattern::Contains(rest),
            });
        }
        Regex::new(text).map(Pattern::Regex).map_err(|e| e.to_string())
    }

    pub fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Contains(part) => contains(text.as_bytes(), part.as_bytes()),
            Pattern::StartsWith(part) => text.starts_with(part.as_str()),
            Pattern::EndsWith(part) => text.ends_with(part.as_str()),
            Pattern::Equals(part) => text == part,
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}

/// Hosts and paths, either of which may be left open (empty: any).
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub hosts: Vec<Pattern>,
    pub paths: Vec<Pattern>,
}

impl Rule {
    pub fn matches(&self, host: &str, path: &str) -> bool {
        let any = |patterns: &[Pattern], text| patterns.is_empty() || patterns.iter().any(|p| p.matches(text));
        any(&self.hosts, host) && any(&self.paths, path)
    }
}

/// Telemetry endpoints that are not captured unless `exemptionRules` says so.
pub const TELEMETRY_PATHS: [&str; 9] = [
    "/v1/traces",
    "/api/traces",
    "/v1/metrics",
    "/api/metrics",
    "/v1/logs",
    "/api/logs",
    "/otlp/v1/traces",
    "/otlp/v1/metrics",
    "/otlp/v1/logs",
];
/// Extensions of static resources.
pub const STATIC_EXTENSIONS: [&str; 16] = [
    "js", "mjs", "css", "svg", "png", "jpg", "jpeg", "gif", "webp", "avif", "ico", "ttf", "otf", "woff", "woff2", "map",
];
/// Content types of static resources; `type/*` covers a whole type.
pub const STATIC_CONTENT_TYPES: [&str; 6] =
    ["text/javascript", "application/javascript", "application/x-javascript", "text/css", "image/*", "font/*"];

/// The compiled policy. Rules without any entry select everything.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub server: Vec<Rule>,
    pub client: Vec<Rule>,
    pub exempt: Vec<Rule>,
    pub extensions: NameSet,
    pub content_types: NameSet,
    pub prefetch: bool,
}

impl Policy {
    /// Whether the answer of `decide` can depend on the direction; if not,
    /// nobody has to find it out first.
    pub fn needs_direction(&self) -> bool {
        !(self.server.is_empty() && self.client.is_empty())
    }

    /// Decides from the request head. Patterns see the host without its port
    /// and the path without its query.
    pub fn decide(&self, head: &Head<'_>, direction: Direction) -> Decision {
        self.judge(head, direction).0
    }

    /// As `decide`, with the rule that decided.
    pub fn judge(&self, head: &Head<'_>, direction: Direction) -> (Decision, Option<Matched>) {
        let path = head.path_without_query();
        if self.prefetch && (head.prefetch || is_page_data(head.path)) {
            return (Decision::Skip(Reason::Prefetch), None);
        }
        if !self.extensions.is_empty() && extension(path).is_some_and(|e| self.extensions.contains(e)) {
            return (Decision::Skip(Reason::Static), None);
        }
        if self.exempt.is_empty() && !self.needs_direction() {
            return (Decision::Capture, None);
        }
        let (host, path) = (text(host_without_port(head.authority)), text(path));
        let first =
            |rules: &[Rule], concerned: bool| rules.iter().position(|rule| concerned && rule.matches(&host, &path));
        if let Some(at) = first(&self.exempt, true) {
            return (Decision::Skip(Reason::Exempt), Some(Matched::Exempt(at)));
        }
        if !self.needs_direction() {
            return (Decision::Capture, None);
        }
        let server = first(&self.server, direction != Direction::Outbound).map(Matched::Server);
        match server.or_else(|| first(&self.client, direction != Direction::Inbound).map(Matched::Client)) {
            Some(matched) => (Decision::Capture, Some(matched)),
            None => (Decision::Skip(Reason::NotSelected), None),
        }
    }

    /// Whether a response makes its exchange a static resource. Errors are not:
    /// the page that says why an image is missing is worth keeping.
    pub fn is_static(&self, status: Option<u16>, content_type: &[u8]) -> bool {
        if self.content_types.is_empty() || status.is_some_and(|s| s >= 400) {
            return false;
        }
        let essence = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        if self.content_types.contains(essence) {
            return true;
        }
        let Some(slash) = essence.iter().position(|b| *b == b'/') else { return false };
        let family = essence.get(..=slash).unwrap_or_default();
        self.content_types.contains(&[family, b"*"].concat())
    }
}

/// Requests that Next.js makes for itself.
fn is_page_data(path: &[u8]) -> bool {
    find_byte(path, 0, b'_').is_some()
        && (path.starts_with(b"/_next/") || contains(path, b"_rsc=") || contains(path, b"/_next/data/"))
}

fn extension(path: &[u8]) -> Option<&[u8]> {
    let file = path.rsplit(|b| *b == b'/').next()?;
    let dot = file.iter().rposition(|b| *b == b'.')?;
    file.get(dot + 1..)
}

/// `host` of `host`, `host:port`, `[v6]:port`.
pub fn host_without_port(authority: &[u8]) -> &[u8] {
    split_authority(authority).0
}

/// Host and port of an authority; user information is not part of either.
pub fn split_authority(authority: &[u8]) -> (&[u8], Option<u16>) {
    let authority = authority.rsplit(|b| *b == b'@').next().unwrap_or_default();
    let split = authority.iter().rposition(|b| *b == b':').filter(|colon| {
        // A colon inside brackets or one of several is part of an IPv6 address.
        let rest = authority.get(*colon..).unwrap_or_default();
        let host = authority.get(..*colon).unwrap_or_default();
        !rest.contains(&b']') && (host.last() == Some(&b']') || !host.contains(&b':'))
    });
    match split.and_then(|at| authority.split_at_checked(at)) {
        Some((host, port)) => {
            let port = std::str::from_utf8(port.get(1..).unwrap_or_default()).ok().and_then(|p| p.parse().ok());
            (host, port)
        }
        None => (authority, None),
    }
}

/// Text to match against.
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    crate::record::lossy(bytes)
}

#[cfg(test)]
mod tests;
