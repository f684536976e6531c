//! Headers that Envoy itself adds, removes and rewrites, in its order.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use spctl_host::HeaderList;

use super::stream::Peer;
use crate::config::{HostRewrite, Listener, Route, ServerHeader};
use crate::http1::{is_token, is_value, tokens};

/// Headers that mean something between one hop and the next only.
const HOP_BY_HOP: &[&[u8]] = &[b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];

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

/// What Envoy does to a request before any filter sees it.
pub(super) fn prepare_request(headers: &mut HeaderList, listener: &Listener, peer: Peer) {
    if !headers.contains(b":scheme") {
        headers.add(b":scheme", if peer.is_tls { &b"https"[..] } else { b"http" });
    }
    if headers.get(b"expect").is_some_and(|expect| expect.eq_ignore_ascii_case(b"100-continue")) {
        headers.remove(b"expect");
    }
    let internal =
        listener.use_remote_address && is_internal(peer.remote.ip()) && !headers.contains(b"x-forwarded-for");
    if has_envoy_headers(headers) {
        for name in INTERNAL {
            headers.remove(name);
        }
    }
    if listener.use_remote_address {
        headers.add(b"x-forwarded-for", peer.remote.ip().to_string().as_bytes());
    }
    if !headers.contains(b"x-forwarded-proto") {
        headers.add(b"x-forwarded-proto", if peer.is_tls { &b"https"[..] } else { b"http" });
    }
    if internal {
        headers.add(b"x-envoy-internal", b"true");
    }
    if listener.generate_request_id && !headers.contains(b"x-request-id") {
        headers.add(b"x-request-id", &new_request_id());
    }
}

/// Most requests have none; this saves looking for each one.
fn has_envoy_headers(headers: &HeaderList) -> bool {
    headers.iter().any(|(name, _)| name.starts_with(b"x-envoy-") || name == b"x-forwarded-client-cert")
}

/// Removes hop-by-hop headers of a request and those that `connection` names.
pub(crate) fn drop_connection_headers(headers: &mut HeaderList) {
    let keeps_te = headers.get(b"te").map(|te| tokens(te).any(|token| token.eq_ignore_ascii_case(b"trailers")));
    if let Some(connection) = headers.get(b"connection") {
        let named: Vec<Vec<u8>> = tokens(connection).map(<[u8]>::to_vec).collect();
        for name in named.iter().filter(|name| !name.is_empty()) {
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
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Why Envoy refuses a request that it could read: status and details.
pub(crate) fn refusal(headers: &HeaderList) -> Option<(u16, &'static str)> {
    if !headers.contains(b":authority") {
        return Some((400, "missing_host_header"));
    }
    headers.get(b":path").is_some_and(|path| path.contains(&b'#')).then_some((400, "path_normalization_failed"))
}

fn is_internal(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}

/// What Envoy's router does to a request before it looks for a host.
pub(crate) fn route_request(headers: &mut HeaderList, listener: &Listener, route: &Route) {
    if !listener.suppress_envoy_headers && !route.timeout.is_zero() {
        let timeout = route.timeout.as_millis().to_string();
        headers.set_in_place(b"x-envoy-expected-rq-timeout-ms", timeout.as_bytes());
    }
    if let Some(rewritten) = rewritten_path(headers, route) {
        if !listener.suppress_envoy_headers {
            let original = headers.get(b":path").unwrap_or_default().to_vec();
            headers.set_in_place(b"x-envoy-original-path", &original);
        }
        headers.set_in_place(b":path", &rewritten);
    }
    if let HostRewrite::Literal(host) = &route.host_rewrite {
        headers.set_in_place(b":authority", host.as_bytes());
    }
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

fn rewritten_path(headers: &HeaderList, route: &Route) -> Option<Vec<u8>> {
    let replacement = route.prefix_rewrite.as_ref()?;
    let path = headers.get(b":path")?;
    let matched = match &route.matches {
        crate::config::RouteMatch::Prefix(prefix) | crate::config::RouteMatch::Path(prefix) => prefix.len(),
    };
    let mut rewritten = replacement.clone().into_bytes();
    rewritten.extend_from_slice(path.get(matched..)?);
    Some(rewritten)
}

/// What Envoy's router adds to an upstream's response before any filter sees it.
pub(crate) fn received_response(headers: &mut HeaderList, listener: &Listener, took: Duration) {
    if !listener.suppress_envoy_headers {
        let took = took.as_millis().to_string();
        headers.set_in_place(b"x-envoy-upstream-service-time", took.as_bytes());
    }
}

/// What Envoy does to a response after all filters.
pub(crate) fn finish_response(headers: &mut HeaderList, listener: &Listener, close: bool) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if !headers.contains(b"date") {
        with_date(|date| headers.add(b"date", date));
    }
    match listener.server_header {
        ServerHeader::Overwrite => headers.set_in_place(b"server", listener.server_name.as_bytes()),
        ServerHeader::AppendIfAbsent if !headers.contains(b"server") => {
            headers.add(b"server", listener.server_name.as_bytes());
        }
        _ => {}
    }
    if close {
        headers.add(b"connection", b"close");
    }
}

/// Lends the current `date` value, made once a second.
fn with_date(f: impl FnOnce(&[u8])) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    DATE.with_borrow_mut(|(at, text)| {
        if *at != now {
            *at = now;
            *text = http_date(now);
        }
        f(text.as_bytes());
    });
}

/// IMF-fixdate of a Unix time.
fn http_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 0000-03-01, so that leap days end a year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let mut out = String::with_capacity(29);
    let _ = write!(
        out,
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    );
    out
}

/// A version 4 UUID as text.
fn new_request_id() -> [u8; 36] {
    let (high, low) = (random(), random());
    let high = (high & 0xffff_ffff_ffff_0fff) | 0x4000;
    let low = (low & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&low.to_be_bytes());
    let mut out = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        out[at] = b"0123456789abcdef"[usize::from(byte >> 4)];
        out[at + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
        at += 2;
    }
    out
}

/// SplitMix64 per thread, seeded by the standard library's random keys. Request
/// ids must be distinct, not secret.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
    }
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mut z = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_http_wants_them() {
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(1_709_164_800), "Thu, 29 Feb 2024 00:00:00 GMT");
        assert_eq!(http_date(951_782_400 + 86_400), "Wed, 01 Mar 2000 00:00:00 GMT");
    }

    #[test]
    fn request_ids_are_version_4_uuids_and_differ() {
        let (a, b) = (new_request_id(), new_request_id());
        assert_ne!(a, b);
        assert_eq!(a[14], b'4');
        assert!(b"89ab".contains(&a[19]));
        assert_eq!([a[8], a[13], a[18], a[23]], *b"----");
    }
}
