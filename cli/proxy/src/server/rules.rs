//! Headers that Envoy itself adds, removes and rewrites, in its order.

use std::net::SocketAddr;
use std::time::Duration;

use spctl_host::{Exchange, HeaderList, LocalReply};

use super::path::{self, Normal};
use super::stream::Peer;
use super::{date, id, origin};
use crate::config::{HostRewrite, Listener, ServerHeader};
use crate::http1::{is_token, is_value, tokens};
use crate::routing::Compiled;

/// Headers that mean something between one hop and the next only.
const HOP_BY_HOP: &[&[u8]] = &[b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];

/// What a request may say about its own retries.
const RETRY: &[&[u8]] = &[
    b"x-envoy-retry-on",
    b"x-envoy-retry-grpc-on",
    b"x-envoy-max-retries",
    b"x-envoy-retriable-status-codes",
    b"x-envoy-retriable-header-names",
];

/// Instructions to Envoy that a client from outside may not give.
const INTERNAL: &[&[u8]] = &[
    b"x-envoy-internal",
    b"x-envoy-retriable-status-codes",
    b"x-envoy-retriable-header-names",
    b"x-envoy-retry-on",
    b"x-envoy-retry-grpc-on",
    b"x-envoy-max-retries",
    b"x-envoy-upstream-alt-stat-name",
    b"x-envoy-upstream-rq-timeout-ms",
    b"x-envoy-upstream-rq-per-try-timeout-ms",
    b"x-envoy-upstream-rq-timeout-alt-response",
    b"x-envoy-expected-rq-timeout-ms",
    b"x-envoy-force-trace",
    b"x-envoy-ip-tags",
    b"x-envoy-original-url",
    b"x-envoy-hedge-on-per-try-timeout",
    b"x-forwarded-client-cert",
];

/// What a request from outside may not say about its own way either.
const EDGE: &[&[u8]] = &[
    b"x-envoy-decorator-operation",
    b"x-envoy-downstream-service-cluster",
    b"x-envoy-downstream-service-node",
    b"x-envoy-original-path",
    b"x-envoy-original-host",
];

/// What Envoy does to a request before any filter sees it; the address it is
/// taken to come from.
pub(super) fn prepare_request(headers: &mut HeaderList, listener: &Listener, peer: Peer) -> SocketAddr {
    let scheme = if peer.is_tls { &b"https"[..] } else { b"http" };
    if !headers.contains(b":scheme") {
        headers.add(b":scheme", scheme);
    }
    if headers.get(b"expect").is_some_and(|expect| expect.eq_ignore_ascii_case(b"100-continue")) {
        headers.remove(b"expect");
    }
    let source = origin::source(headers, listener, peer);
    let edge = listener.use_remote_address && !source.is_internal;
    if !source.is_internal && has_envoy_headers(headers) {
        INTERNAL.iter().for_each(|name| drop_header(headers, name));
        if edge {
            EDGE.iter().for_each(|name| drop_header(headers, name));
        }
    }
    if listener.use_remote_address {
        if !listener.skip_xff_append {
            headers.add(b"x-forwarded-for", origin::appended(peer).as_bytes());
        }
        if listener.xff_num_trusted_hops == 0 || !headers.contains(b"x-forwarded-proto") {
            headers.set_in_place(b"x-forwarded-proto", scheme);
        }
    } else if !headers.contains(b"x-forwarded-proto") {
        headers.add(b"x-forwarded-proto", scheme);
    }
    append_via(headers, listener);
    if edge && let Some(address) = source.address {
        headers.set_in_place(b"x-envoy-external-address", address.to_string().as_bytes());
    }
    if source.is_internal {
        headers.set_in_place(b"x-envoy-internal", b"true");
    }
    let given = headers.contains(b"x-request-id");
    if listener.generate_request_id && (!given || (edge && !listener.preserve_external_request_id)) {
        headers.set_in_place(b"x-request-id", &id::new_request_id());
    }
    match source.address {
        Some(address) if address != peer.remote.ip() => SocketAddr::new(address, 0),
        _ => peer.remote,
    }
}

fn drop_header(headers: &mut HeaderList, name: &[u8]) {
    headers.remove(name);
}

fn append_via(headers: &mut HeaderList, listener: &Listener) {
    if !listener.via.is_empty() {
        let mut via = headers.get(b"via").map(<[u8]>::to_vec).unwrap_or_default();
        if !via.is_empty() {
            via.extend_from_slice(b", ");
        }
        via.extend_from_slice(listener.via.as_bytes());
        headers.set_in_place(b"via", &via);
    }
}

/// Most requests have none; this saves looking for each one.
pub(super) fn has_envoy_headers(headers: &HeaderList) -> bool {
    headers.iter().any(|(name, _)| name.starts_with(b"x-envoy-") || name == b"x-forwarded-client-cert")
}

/// Removes hop-by-hop headers of a request and those that `connection` names.
pub(super) fn drop_connection_headers(headers: &mut HeaderList, upgrade: bool) {
    let keeps_te = headers.get(b"te").map(|te| tokens(te).any(|token| token.eq_ignore_ascii_case(b"trailers")));
    if let Some(connection) = headers.get(b"connection") {
        let named: Vec<Vec<u8>> = tokens(connection).map(<[u8]>::to_vec).collect();
        let stays = |name: &[u8]| name.is_empty() || (upgrade && name.eq_ignore_ascii_case(b"upgrade"));
        for name in named.iter().filter(|name| !stays(name)) {
            if keeps_te != Some(true) || !name.eq_ignore_ascii_case(b"te") {
                headers.remove(name);
            }
        }
    }
    match keeps_te {
        Some(true) => headers.set_in_place(b"te", b"trailers"),
        Some(false) => {
            headers.remove(b"te");
        }
        None => {}
    }
    drop_hop_by_hop(headers, upgrade);
}

fn drop_hop_by_hop(headers: &mut HeaderList, upgrade: bool) {
    for name in HOP_BY_HOP {
        let kept: [&[u8]; 2] = [b"connection", b"upgrade"];
        if !upgrade || !kept.contains(name) {
            headers.remove(name);
        }
    }
}

/// What Envoy answers to a request that it could read and will not take; the
/// path is made plain.
pub(super) fn refusal(headers: &mut HeaderList, listener: &Listener) -> Option<LocalReply> {
    const PATH: &str = "path_normalization_failed";
    if !headers.contains(b":authority") {
        return Some(LocalReply::new(400, "", "missing_host_header"));
    }
    let path = headers.get(b":path")?;
    if path.contains(&b'#') {
        return Some(LocalReply::new(400, "", PATH));
    }
    match path::normalize(path, listener.path) {
        Normal::Same => None,
        Normal::Changed(plain) => {
            headers.set_in_place(b":path", &plain);
            None
        }
        Normal::Redirect(plain) => {
            let location = (b"location".to_vec(), plain);
            Some(LocalReply { headers: vec![location], ..LocalReply::new(307, "", PATH) })
        }
        Normal::Refused => Some(LocalReply::new(400, "", PATH)),
    }
}

/// How long an answer may take; zero: no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimits {
    pub(super) timeout: Duration,
    pub(super) per_try: Duration,
}

impl TimeLimits {
    /// How long the first try may take.
    pub(super) fn first(self) -> Duration {
        if self.per_try.is_zero() { self.timeout } else { self.per_try }
    }
}

/// Tells the upstream how long it may take; zero: nothing to tell.
pub(super) fn expect_answer_within(headers: &mut HeaderList, listener: &Listener, limit: Duration) {
    if !listener.suppress_envoy_headers && !limit.is_zero() {
        headers.set_in_place(b"x-envoy-expected-rq-timeout-ms", limit.as_millis().to_string().as_bytes());
    }
}

/// The route's limits, or those that the request brings, which end here.
pub(super) fn take_limits(headers: &mut HeaderList, route: &Compiled, brings: bool) -> TimeLimits {
    let of_route = route.retry.as_ref().map_or(Duration::ZERO, |retry| retry.per_try_timeout);
    if !brings {
        return TimeLimits { timeout: route.config.timeout, per_try: of_route };
    }
    let mut brought = |name: &[u8]| {
        let millis = headers.get(name).and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        if millis.is_some() {
            headers.remove(name);
        }
        millis.map(Duration::from_millis)
    };
    let timeout = brought(b"x-envoy-upstream-rq-timeout-ms").unwrap_or(route.config.timeout);
    let per_try = brought(b"x-envoy-upstream-rq-per-try-timeout-ms").unwrap_or(of_route);
    // A try that may last as long as all of them has no limit of its own.
    let per_try = if !timeout.is_zero() && per_try >= timeout { Duration::ZERO } else { per_try };
    TimeLimits { timeout, per_try }
}

/// Removes what a request has said about its own retries.
pub(super) fn drop_retry_headers(headers: &mut HeaderList) {
    for name in RETRY {
        headers.remove(name);
    }
}

/// What Envoy's router does to a request before it looks for a host.
pub(super) fn route_request(headers: &mut HeaderList, listener: &Listener, route: &Compiled, exchange: &Exchange) {
    route.change_request(headers, exchange);
    if let HostRewrite::Literal(host) = &route.config.host_rewrite {
        rewrite_host(headers, listener, host.as_bytes());
    }
    let path = headers.get(b":path").and_then(|path| route.rewritten_path(path));
    if let Some(path) = path {
        rewrite(headers, listener, b":path", b"x-envoy-original-path", &path);
    }
}

/// Another host, and the one it had in a header.
pub(super) fn rewrite_host(headers: &mut HeaderList, listener: &Listener, host: &[u8]) {
    rewrite(headers, listener, b":authority", b"x-envoy-original-host", host);
}

fn rewrite(headers: &mut HeaderList, listener: &Listener, name: &[u8], original: &[u8], new: &[u8]) {
    if !listener.suppress_envoy_headers {
        let old = headers.get(name).unwrap_or_default().to_vec();
        headers.set_in_place(original, &old);
    }
    headers.set_in_place(name, new);
}

/// Why a request that filters have changed cannot be sent.
pub(crate) fn check_request(headers: &HeaderList) -> Result<(), String> {
    for name in [":method", ":path"] {
        let tunnel = name == ":path" && headers.get(b":method") == Some(b"CONNECT");
        if !tunnel && !headers.contains(name.as_bytes()) {
            return Err(format!("missing required header: {name}"));
        }
    }
    for (name, value) in headers.iter() {
        let text = || String::from_utf8_lossy(name);
        let bare = name.strip_prefix(b":").unwrap_or(name);
        if bare.is_empty() || !bare.iter().copied().all(is_token) {
            return Err(format!("invalid header name: {}", text()));
        }
        if !value.iter().copied().all(is_value) {
            return Err(format!("invalid header value for: {}", text()));
        }
    }
    Ok(())
}

/// What Envoy's router adds to an upstream's response before any filter sees it.
pub(crate) fn received_response(headers: &mut HeaderList, listener: &Listener, took: Duration) {
    if !listener.suppress_envoy_headers {
        let took = took.as_millis().to_string();
        headers.set_in_place(b"x-envoy-upstream-service-time", took.as_bytes());
    }
}

/// What Envoy does to a response after all filters.
pub(crate) fn finish_response(headers: &mut HeaderList, listener: &Listener, upgrade: bool) {
    drop_hop_by_hop(headers, upgrade && headers.contains(b"upgrade"));
    if !headers.contains(b"date") {
        date::with_now(|date| headers.add(b"date", date));
    }
    match listener.server_header {
        ServerHeader::Overwrite => headers.set_in_place(b"server", listener.server_name.as_bytes()),
        ServerHeader::AppendIfAbsent if !headers.contains(b"server") => {
            headers.add(b"server", listener.server_name.as_bytes());
        }
        _ => {}
    }
    append_via(headers, listener);
}
