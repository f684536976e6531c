//! Header lists as the HTTP/2 library has them, and back.
//!
//! The library keeps headers of one name together: where a client mixes them,
//! their order among others is not kept.

mod outgoing;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, request, response};
use spctl_host::{HeaderKind, HeaderList};

pub(crate) use outgoing::Outgoing;

/// What cannot be said in HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unspeakable;

/// A request's head as Envoy's map has it.
pub(crate) fn request_headers(head: &request::Parts) -> HeaderList {
    let mut list = HeaderList::new(HeaderKind::Request);
    list.add(b":method", head.method.as_str().as_bytes());
    if let Some(scheme) = head.uri.scheme_str() {
        list.add(b":scheme", scheme.as_bytes());
    }
    if let Some(authority) = head.uri.authority() {
        list.add(b":authority", authority.as_str().as_bytes());
    }
    if let Some(path) = head.uri.path_and_query().filter(|_| is_path_needed(head)) {
        list.add(b":path", path.as_str().as_bytes());
    }
    if let Some(protocol) = head.extensions.get::<h2::ext::Protocol>() {
        list.add(b":protocol", protocol.as_str().as_bytes());
    }
    let has_authority = list.contains(b":authority");
    let cookies: Vec<&[u8]> = head.headers.get_all("cookie").iter().map(HeaderValue::as_bytes).collect();
    for (name, value) in &head.headers {
        if name == "cookie" && cookies.len() > 1 {
            if !list.contains(b"cookie") {
                list.add(b"cookie", &cookies.join(&b"; "[..]));
            }
        } else if name != "host" || !has_authority {
            list.add(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    list
}

fn is_path_needed(head: &request::Parts) -> bool {
    head.method != Method::CONNECT || head.extensions.get::<h2::ext::Protocol>().is_some()
}

/// A response's head as Envoy's map has it.
pub(crate) fn response_headers(head: &response::Parts) -> HeaderList {
    let mut list = HeaderList::new(HeaderKind::Response);
    list.add(b":status", head.status.as_str().as_bytes());
    add_all(&mut list, &head.headers);
    list
}

pub(crate) fn trailers(map: &HeaderMap, kind: HeaderKind) -> HeaderList {
    let mut list = HeaderList::new(kind);
    add_all(&mut list, map);
    list
}

fn add_all(list: &mut HeaderList, map: &HeaderMap) {
    for (name, value) in map {
        list.add(name.as_str().as_bytes(), value.as_bytes());
    }
}

/// A request to send.
pub(crate) fn to_request(list: &HeaderList) -> Result<Request<()>, Unspeakable> {
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(list.get(b":method").unwrap_or(b"GET")).map_err(|_| Unspeakable)?;
    let mut uri = http::uri::Parts::default();
    if let Some(authority) = list.get(b":authority").filter(|authority| !authority.is_empty()) {
        uri.authority = Some(authority.try_into().map_err(|_| Unspeakable)?);
    }
    let protocol = list.get(b":protocol").and_then(|protocol| std::str::from_utf8(protocol).ok());
    if request.method() != Method::CONNECT || protocol.is_some() {
        uri.scheme = Some(list.get(b":scheme").unwrap_or(b"http").try_into().map_err(|_| Unspeakable)?);
        uri.path_and_query = Some(list.get(b":path").unwrap_or(b"/").try_into().map_err(|_| Unspeakable)?);
    }
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Unspeakable)?;
    *request.headers_mut() = to_map(list)?;
    Ok(request)
}

/// A response to send.
pub(crate) fn to_response(list: &HeaderList) -> Result<Response<()>, Unspeakable> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_bytes(list.get(b":status").unwrap_or_default()).map_err(|_| Unspeakable)?;
    *response.headers_mut() = to_map(list)?;
    Ok(response)
}

/// Everything but the pseudo headers.
pub(crate) fn to_map(list: &HeaderList) -> Result<HeaderMap, Unspeakable> {
    let mut map = HeaderMap::with_capacity(list.len());
    for (name, value) in list.iter().filter(|(name, _)| name.first() != Some(&b':')) {
        let name = HeaderName::from_bytes(name).map_err(|_| Unspeakable)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Unspeakable)?;
        map.append(name, value);
    }
    Ok(map)
}
