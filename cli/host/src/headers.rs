//! An ordered header list with the semantics of Envoy's header map.
//!
//! Names are lower case, pseudo headers come first, duplicates are kept, except
//! for the headers that Envoy holds in one slot: adding to those joins values.
//! One buffer holds all text, so that a list is cheap to fill and to reuse.

use std::ops::Range;

/// Which of Envoy's header maps a list is; decides the single-slot headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderKind {
    #[default]
    Request,
    Response,
    RequestTrailers,
    ResponseTrailers,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
}

impl Entry {
    fn name_range(self) -> Range<usize> {
        self.name as usize..self.name as usize + self.name_len as usize
    }

    fn value_range(self) -> Range<usize> {
        self.value as usize..self.value as usize + self.value_len as usize
    }
}

/// Headers in order. See the module for what it keeps.
#[derive(Debug, Clone, Default)]
pub struct HeaderList {
    kind: HeaderKind,
    text: Vec<u8>,
    entries: Vec<Entry>,
    /// Leading entries whose name begins with a colon.
    pseudo: usize,
}

impl HeaderList {
    pub fn new(kind: HeaderKind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Forgets everything but the memory, for another message.
    pub fn reset(&mut self, kind: HeaderKind) {
        self.kind = kind;
        self.text.clear();
        self.entries.clear();
        self.pseudo = 0;
    }

    pub fn kind(&self) -> HeaderKind {
        self.kind
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values together, as Envoy counts them.
    pub fn byte_size(&self) -> usize {
        self.entries.iter().map(|e| (e.name_len + e.value_len) as usize).sum()
    }

    /// Name and value of every header, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        self.entries.iter().map(|e| (&self.text[e.name_range()], &self.text[e.value_range()]))
    }

    fn canonical<'a>(&self, name: &'a [u8]) -> &'a [u8] {
        if self.kind == HeaderKind::Request && name.eq_ignore_ascii_case(b"host") { b":authority" } else { name }
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        self.entries
            .iter()
            .position(|e| e.name_len as usize == name.len() && self.text[e.name_range()].eq_ignore_ascii_case(name))
    }

    /// The first value of a header; `host` finds `:authority`.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let at = self.position(self.canonical(name))?;
        Some(&self.text[self.entries[at].value_range()])
    }

    pub fn contains(&self, name: &[u8]) -> bool {
        self.position(self.canonical(name)).is_some()
    }

    /// All values of a header, in order.
    pub fn get_all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let name = self.canonical(name);
        self.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    /// Adds a value: joined to the one that is there for a single-slot header,
    /// else as one more header.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        let name = self.canonical(name);
        if let Some(at) = self.position(name)
            && single_slot(self.kind, name)
        {
            self.join(at, value);
            return;
        }
        self.push(name, value);
    }

    fn join(&mut self, at: usize, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        let old = self.entries[at].value_range();
        let start = self.text.len();
        self.text.extend_from_within(old.clone());
        if !old.is_empty() {
            self.text.push(b',');
        }
        self.text.extend_from_slice(value);
        self.entries[at].value = offset(start);
        self.entries[at].value_len = offset(self.text.len() - start);
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        self.text[start..].make_ascii_lowercase();
        self.text.extend_from_slice(value);
        let entry = Entry {
            name: offset(start),
            name_len: offset(name.len()),
            value: offset(start + name.len()),
            value_len: offset(value.len()),
        };
        if name.first() == Some(&b':') {
            self.entries.insert(self.pseudo, entry);
            self.pseudo += 1;
        } else {
            self.entries.push(entry);
        }
    }

    /// Removes every value of the header, then adds this one at the end.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.remove(name);
        let name = self.canonical(name);
        self.push(name, value);
    }

    /// Puts a value where the first one stands; adds it when there is none.
    /// What Envoy's own code does with the headers it has slots for.
    pub fn set_in_place(&mut self, name: &[u8], value: &[u8]) {
        let name = self.canonical(name);
        match self.position(name) {
            Some(at) => {
                let start = self.text.len();
                self.text.extend_from_slice(value);
                self.entries[at].value = offset(start);
                self.entries[at].value_len = offset(value.len());
            }
            None => self.push(name, value),
        }
    }

    /// Removes every value of a header and tells how many there were.
    pub fn remove(&mut self, name: &[u8]) -> usize {
        let name = self.canonical(name);
        let Some(first) = self.position(name) else { return 0 };
        let text = &self.text;
        let before = self.entries.len();
        let mut index = 0;
        self.entries.retain(|e| {
            let keep = index < first || !text[e.name_range()].eq_ignore_ascii_case(name);
            index += 1;
            keep
        });
        let removed = before - self.entries.len();
        if name.first() == Some(&b':') {
            self.pseudo -= removed;
        }
        removed
    }

    /// Removes everything, then adds the pairs one by one.
    pub fn replace_all<'a>(&mut self, pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
        let kind = self.kind;
        self.reset(kind);
        for (name, value) in pairs {
            self.add(name, value);
        }
    }

    /// The values of a header joined with commas, as CEL and logs show them.
    pub fn joined(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut values = self.get_all(name);
        let mut out = values.next()?.to_vec();
        for value in values {
            out.push(b',');
            out.extend_from_slice(value);
        }
        Some(out)
    }
}

impl PartialEq for HeaderList {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a> FromIterator<(&'a [u8], &'a [u8])> for HeaderList {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], &'a [u8])>>(pairs: I) -> Self {
        let mut list = Self::default();
        for (name, value) in pairs {
            list.add(name, value);
        }
        list
    }
}

/// Lists are bounded far below 4 GiB by the readers that fill them.
fn offset(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Headers for which Envoy's map holds one slot (`header_map.h`, and the custom
/// ones its extensions register).
fn single_slot(kind: HeaderKind, name: &[u8]) -> bool {
    const BOTH: &[&str] = &[
        "connection",
        "content-length",
        "content-type",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-envoy-attempt-count",
        "x-envoy-decorator-operation",
        "x-request-id",
    ];
    const REQUEST: &[&str] = &[
        ":authority",
        ":method",
        ":path",
        ":protocol",
        ":scheme",
        "accept",
        "accept-encoding",
        "access-control-request-headers",
        "access-control-request-method",
        "authorization",
        "cache-control",
        "content-encoding",
        "expect",
        "grpc-accept-encoding",
        "grpc-timeout",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "origin",
        "pragma",
        "referer",
        "te",
        "user-agent",
        "x-client-trace-id",
        "x-envoy-downstream-service-cluster",
        "x-envoy-downstream-service-node",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-external-address",
        "x-envoy-force-trace",
        "x-envoy-hedge-on-per-try-timeout",
        "x-envoy-internal",
        "x-envoy-ip-tags",
        "x-envoy-is-timeout-retry",
        "x-envoy-max-retries",
        "x-envoy-original-path",
        "x-envoy-original-url",
        "x-envoy-retriable-header-names",
        "x-envoy-retriable-status-codes",
        "x-envoy-retry-grpc-on",
        "x-envoy-retry-on",
        "x-envoy-upstream-alt-stat-name",
        "x-envoy-upstream-rq-per-try-timeout-ms",
        "x-envoy-upstream-rq-timeout-alt-response",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-upstream-stream-duration-ms",
        "x-forwarded-client-cert",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
    ];
    const RESPONSE: &[&str] = &[
        ":status",
        "access-control-allow-credentials",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "access-control-max-age",
        "age",
        "cache-control",
        "content-encoding",
        "date",
        "etag",
        "expires",
        "grpc-message",
        "grpc-status",
        "last-modified",
        "location",
        "proxy-status",
        "server",
        "vary",
        "x-envoy-degraded",
        "x-envoy-immediate-health-check-fail",
        "x-envoy-ratelimited",
        "x-envoy-upstream-canary",
        "x-envoy-upstream-healthchecked-cluster",
        "x-envoy-upstream-service-time",
    ];
    const RESPONSE_TRAILERS: &[&str] = &["grpc-message", "grpc-status"];
    let named = |set: &[&str]| set.iter().any(|n| n.as_bytes().eq_ignore_ascii_case(name));
    match kind {
        HeaderKind::Request => named(BOTH) || named(REQUEST),
        HeaderKind::Response => named(BOTH) || named(RESPONSE),
        HeaderKind::RequestTrailers => false,
        HeaderKind::ResponseTrailers => named(RESPONSE_TRAILERS),
    }
}
