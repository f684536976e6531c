//! Targets of requests: which are well formed, and their parts.

use super::chars::{is_host, is_path};
use super::request::BadRequest;

/// The parts of a target that it names.
pub(super) struct Target<'a> {
    pub(super) scheme: Option<&'static [u8]>,
    pub(super) authority: Option<&'a [u8]>,
    pub(super) path: Option<&'a [u8]>,
}

/// Made of the characters a target may have, in a form that exists.
pub(super) fn is_target(target: &[u8], connect: bool) -> bool {
    if matches!(target.first(), Some(b'/' | b'*')) {
        return target[1..].iter().copied().all(is_path);
    }
    let rest = if connect { Some(target) } else { behind_scheme(target).map(|(_, rest)| rest) };
    let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { return false };
    let (host, path) = split_host(rest);
    host.iter().copied().all(is_host) && !host.windows(2).any(|pair| pair == b"@@") && path.iter().copied().all(is_path)
}

/// The parts of a target that is well formed, as Envoy routes by them.
pub(super) fn split_target<'a>(target: &'a [u8], method: &[u8]) -> Result<Target<'a>, BadRequest> {
    if method == b"CONNECT" {
        let has_port = target.iter().rposition(|byte| *byte == b':').is_some_and(|at| is_port(&target[at + 1..]));
        return match has_port {
            true => Ok(Target { scheme: None, authority: Some(target), path: None }),
            false => Err(BadRequest::InvalidUrl),
        };
    }
    if target.first() == Some(&b'/') || (method == b"OPTIONS" && target.first() == Some(&b'*')) {
        return Ok(Target { scheme: None, authority: None, path: Some(target) });
    }
    let (scheme, rest) = behind_scheme(target).ok_or(BadRequest::InvalidUrl)?;
    let (host, path) = split_host(rest);
    let host = host.iter().rposition(|byte| *byte == b'@').map_or(host, |at| &host[at + 1..]);
    if host.is_empty() || !is_host_and_port(host) {
        return Err(BadRequest::InvalidUrl);
    }
    let scheme: &[u8] = match scheme {
        scheme if scheme.eq_ignore_ascii_case(b"http") => b"http",
        scheme if scheme.eq_ignore_ascii_case(b"https") => b"https",
        _ => return Err(BadRequest::InvalidScheme),
    };
    Ok(Target { scheme: Some(scheme), authority: Some(host), path: Some(if path.is_empty() { b"/" } else { path }) })
}

fn behind_scheme(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = target.windows(3).position(|window| window == b"://")?;
    let (scheme, rest) = (&target[..at], &target[at + 3..]);
    let well_formed = scheme.first()?.is_ascii_alphabetic()
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    well_formed.then_some((scheme, rest))
}

fn split_host(rest: &[u8]) -> (&[u8], &[u8]) {
    rest.split_at(rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len()))
}

fn is_host_and_port(host: &[u8]) -> bool {
    let behind_brackets = host.iter().rposition(|byte| *byte == b']').map_or(0, |at| at + 1);
    match host[behind_brackets..].iter().position(|byte| *byte == b':') {
        Some(at) => is_port(&host[behind_brackets + at + 1..]),
        None => true,
    }
}

fn is_port(port: &[u8]) -> bool {
    std::str::from_utf8(port)
        .is_ok_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}
