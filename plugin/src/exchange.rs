//! One exchange while it is being recorded: a request head, what follows it,
//! and how it ended.

use crate::body::BoundedBody;
use crate::headers::Headers;
use crate::trace::TraceParent;

/// Which way the exchange crosses the workload that the proxy belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
    Unspecified,
}

/// What the filter reads from request headers, borrowed from the host's bytes.
#[derive(Clone, Debug, Default)]
pub struct Head<'a> {
    pub method: &'a [u8],
    pub scheme: &'a [u8],
    pub authority: &'a [u8],
    pub path: &'a [u8],
    /// The one `traceparent`; several make none (W3C trace-context §3.2.2.5).
    pub traceparent: Option<&'a [u8]>,
    pub tracestate: Vec<&'a [u8]>,
    /// Session id headers by rank, see `SESSION_HEADERS`.
    pub session: Option<(usize, &'a [u8])>,
    pub service_name: Option<&'a [u8]>,
    pub hops: Option<&'a [u8]>,
    /// A tunnel is asked for. What the `upgrade` header asks for is seen by the
    /// 101 that grants it: clients also offer `h2c` on ordinary requests.
    pub connect: bool,
    pub prefetch: bool,
    /// gRPC, whose answers end in trailers.
    pub grpc: bool,
    /// Length of the body, where it is told.
    pub content_length: Option<u64>,
}

/// Request headers that carry a session id, first wins.
pub const SESSION_HEADERS: [&str; 4] = ["x-softprobe-session-id", "x-sp-session-id", "sp_session_id", "x-session-id"];

impl<'a> Head<'a> {
    pub fn read(headers: &'a Headers) -> Head<'a> {
        let mut head = Head::default();
        let mut parents = 0;
        for (name, value) in headers.iter() {
            match name {
                b":method" => head.method = value,
                b":scheme" => head.scheme = value,
                b":authority" => head.authority = value,
                b":path" => head.path = value,
                b"traceparent" => {
                    parents += 1;
                    head.traceparent = Some(value);
                }
                b"tracestate" => head.tracestate.push(value),
                b"x-sp-service-name" => head.service_name = Some(value).filter(|v| !v.is_empty()),
                b"x-sp-num" => head.hops = Some(value),
                b"rsc" | b"next-router-prefetch" | b"next-router-state-tree" => head.prefetch = true,
                b"purpose" | b"sec-purpose" => head.prefetch |= value.eq_ignore_ascii_case(b"prefetch"),
                b"content-type" => head.grpc = value.starts_with(b"application/grpc"),
                b"content-length" => head.content_length = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()),
                b"accept" => head.prefetch |= contains_ignoring_case(value, b"text/x-component"),
                _ => head.note_session(name, value),
            }
        }
        if parents > 1 {
            head.traceparent = None;
        }
        head.connect = head.method == b"CONNECT";
        head
    }

    #[inline]
    fn note_session(&mut self, name: &[u8], value: &'a [u8]) {
        if !matches!(name.len(), 12 | 13 | 15 | 22) || value.is_empty() {
            return;
        }
        if let Some(rank) = SESSION_HEADERS.iter().position(|h| h.as_bytes() == name)
            && self.session.is_none_or(|(best, _)| rank < best)
        {
            self.session = Some((rank, value));
        }
    }

    pub fn path_without_query(&self) -> &'a [u8] {
        self.path.split(|b| *b == b'?').next().unwrap_or_default()
    }
}

fn contains_ignoring_case(text: &[u8], part: &[u8]) -> bool {
    text.len() >= part.len() && text.windows(part.len()).any(|w| w.eq_ignore_ascii_case(part))
}

/// How far an exchange has come. A response cannot start twice, and one that
/// was not seen to its end was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Request,
    Response,
    Complete,
}

/// One side of the exchange.
#[derive(Debug, Default)]
pub struct Message {
    pub headers: Headers,
    pub body: BoundedBody,
    pub trailers: Headers,
}

/// An exchange being recorded.
#[derive(Debug)]
pub struct Exchange {
    pub phase: Phase,
    pub direction: Direction,
    pub request: Message,
    pub response: Message,
    pub status: Option<u16>,
    /// Our span: the caller's trace, or a new one.
    pub span: TraceParent,
    /// The caller's span, if it told us one.
    pub parent: Option<[u8; 8]>,
    /// tracestate as it left us.
    pub trace_state: Option<String>,
    pub session: Option<String>,
    pub service: Option<String>,
    /// Bytes held, of `limits.streams_bytes`.
    pub held: usize,
    /// Bodies are tunnelled data, not part of the exchange.
    pub upgrade: bool,
    pub start_wall_ns: u64,
    pub start_ns: u64,
    pub request_end_ns: Option<u64>,
    pub response_start_ns: Option<u64>,
    pub end_ns: u64,
    pub peers: Peers,
}

/// What the proxy knows about the connections, as it spells it.
#[derive(Debug, Default)]
pub struct Peers {
    pub protocol: Option<String>,
    pub source: Option<String>,
    pub destination: Option<String>,
    pub upstream: Option<String>,
    /// Namespace of the upstream's workload, in a mesh.
    pub namespace: Option<String>,
}

impl Exchange {
    pub fn is_aborted(&self) -> bool {
        self.phase != Phase::Complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head<'a>(headers: &'a mut Headers, pairs: &[(&str, &str)]) -> Head<'a> {
        *headers = Headers::from_pairs(pairs.iter().map(|(n, v)| (*n, v.as_bytes())));
        Head::read(headers)
    }

    #[test]
    fn two_traceparents_are_none() {
        let mut headers = Headers::default();
        assert!(head(&mut headers, &[("traceparent", "a")]).traceparent.is_some());
        assert!(head(&mut headers, &[("traceparent", "a"), ("traceparent", "a")]).traceparent.is_none());
    }

    #[test]
    fn the_best_ranked_session_header_wins() {
        let mut headers = Headers::default();
        let pairs = [("x-session-id", "c"), ("x-softprobe-session-id", ""), ("x-sp-session-id", "b")];
        assert_eq!(head(&mut headers, &pairs).session, Some((1, &b"b"[..])));
    }
}
