//! An httpbin-compatible service: what `run` puts behind a filter when no
//! upstream is named, so that examples and courses work offline.

use std::convert::Infallible;
use std::io::Write;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, RawQuery};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use futures_util::stream;
use serde_json::{Map, Value, json};

/// httpbin.org's own bounds.
const DELAY_MAX: u64 = 10;
const BYTES_MAX: usize = 100 * 1024;
const LINES_MAX: u64 = 100;

pub(super) fn router() -> Router {
    let mut router = Router::new();
    for path in ["/get", "/post", "/put", "/patch", "/delete", "/anything", "/anything/{*rest}"] {
        router = router.route(path, any(anything));
    }
    router
        .route("/", get(|| async { "spctl's built-in upstream: /get /post /headers /anything /status/N /delay/N /response-headers /bytes/N /stream/N /gzip ...\n" }))
        .route("/headers", any(|headers: HeaderMap| async move { Json(json!({"headers": header_map(&headers)})) }))
        .route("/ip", get(|| async { Json(json!({"origin": "127.0.0.1"})) }))
        .route("/user-agent", get(|headers: HeaderMap| async move { Json(json!({"user-agent": text(headers.get(header::USER_AGENT))})) }))
        .route("/uuid", get(|| async { Json(json!({"uuid": uuid()})) }))
        .route("/status/{code}", any(status))
        .route("/delay/{seconds}", any(delay))
        .route("/response-headers", any(response_headers))
        .route("/bytes/{count}", get(random_bytes))
        .route("/stream/{count}", get(stream_lines))
        .route("/stream-bytes/{count}", get(random_bytes))
        .route("/gzip", get(|method: Method, headers: HeaderMap| async move { compressed("gzip", &method, &headers) }))
        .route("/deflate", get(|method: Method, headers: HeaderMap| async move { compressed("deflate", &method, &headers) }))
        .route("/redirect-to", any(redirect_to))
        .route("/redirect/{count}", get(redirect))
        .route("/cookies", get(|headers: HeaderMap| async move { Json(json!({"cookies": cookies(&headers)})) }))
        .route("/json", get(|| async { Json(json!({"slideshow": {"title": "Sample Slide Show", "author": "Yours Truly"}})) }))
        .route("/html", get(|| async { axum::response::Html("<!DOCTYPE html><html><body><h1>Herman Melville - Moby-Dick</h1></body></html>") }))
        .route("/robots.txt", get(|| async { "User-agent: *\nDisallow: /deny\n" }))
}

async fn anything(
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Query(args): Query<Vec<(String, String)>>,
    body: Bytes,
) -> impl IntoResponse {
    let content_type = text(headers.get(header::CONTENT_TYPE)).unwrap_or_default();
    let host = text(headers.get(header::HOST)).unwrap_or_default();
    let form = if content_type.starts_with("application/x-www-form-urlencoded") { form(&body) } else { Map::new() };
    let data = match std::str::from_utf8(&body) {
        Ok(_) if !form.is_empty() => String::new(),
        Ok(text) => text.to_owned(),
        Err(_) => format!("data:application/octet-stream;base64,{}", STANDARD.encode(&body)),
    };
    Json(json!({
        "args": pairs(args),
        "data": data,
        "files": {},
        "form": form,
        "headers": header_map(&headers),
        "json": serde_json::from_slice::<Value>(&body).unwrap_or(Value::Null),
        "method": method.as_str(),
        "origin": "127.0.0.1",
        "url": format!("http://{host}{uri}"),
    }))
}

async fn status(Path(code): Path<u16>) -> Response {
    match StatusCode::from_u16(code) {
        Ok(status) if code >= 200 => status.into_response(),
        _ => (StatusCode::BAD_REQUEST, "Invalid status code").into_response(),
    }
}

async fn delay(
    Path(seconds): Path<u64>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    args: Query<Vec<(String, String)>>,
    body: Bytes,
) -> impl IntoResponse {
    tokio::time::sleep(Duration::from_secs(seconds.min(DELAY_MAX))).await;
    anything(method, uri, headers, args, body).await
}

async fn response_headers(Query(args): Query<Vec<(String, String)>>) -> Response {
    let mut response = Json(pairs(args.clone())).into_response();
    for (name, value) in args {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

async fn random_bytes(Path(count): Path<usize>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let seed = query.and_then(|q| q.strip_prefix("seed=").and_then(|s| s.parse().ok())).unwrap_or_else(clock_seed);
    ([(header::CONTENT_TYPE, "application/octet-stream")], xorshift(seed, count.min(BYTES_MAX)))
}

async fn stream_lines(Path(count): Path<u64>, headers: HeaderMap) -> Response {
    let headers = header_map(&headers);
    let lines = (0..count.min(LINES_MAX)).map(move |id| {
        Ok::<_, Infallible>(Bytes::from(format!(
            "{}\n",
            json!({"id": id, "args": {}, "headers": headers, "origin": "127.0.0.1"})
        )))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream::iter(lines))).into_response()
}

fn compressed(coding: &'static str, method: &Method, headers: &HeaderMap) -> Response {
    let body = json!({"gzipped": coding == "gzip", "deflated": coding == "deflate", "headers": header_map(headers), "method": method.as_str(), "origin": "127.0.0.1"}).to_string();
    let packed = if coding == "gzip" {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body.as_bytes()).and_then(|()| encoder.finish())
    } else {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body.as_bytes()).and_then(|()| encoder.finish())
    };
    match packed {
        Ok(bytes) => {
            ([(header::CONTENT_TYPE, "application/json"), (header::CONTENT_ENCODING, coding)], bytes).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

async fn redirect_to(Query(args): Query<Vec<(String, String)>>) -> Response {
    let of = |name: &str| args.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let status = of("status_code")
        .and_then(|s| s.parse().ok())
        .and_then(|s| StatusCode::from_u16(s).ok())
        .unwrap_or(StatusCode::FOUND);
    match of("url") {
        Some(url) => (status, [(header::LOCATION, url)]).into_response(),
        None => (StatusCode::BAD_REQUEST, "no url").into_response(),
    }
}

async fn redirect(Path(count): Path<u32>) -> Response {
    let next = if count <= 1 { "/get".to_owned() } else { format!("/redirect/{}", count - 1) };
    (StatusCode::FOUND, [(header::LOCATION, next)]).into_response()
}

/// Names as httpbin prints them; repeated values joined.
fn header_map(headers: &HeaderMap) -> Map<String, Value> {
    let mut map = Map::new();
    for name in headers.keys() {
        let joined: Vec<String> =
            headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
        let title: Vec<String> = name
            .as_str()
            .split('-')
            .map(|part| {
                part.chars().next().map_or(String::new(), |first| {
                    first.to_ascii_uppercase().to_string() + part.get(1..).unwrap_or_default()
                })
            })
            .collect();
        map.insert(title.join("-"), Value::String(joined.join(",")));
    }
    map
}

fn pairs(args: Vec<(String, String)>) -> Map<String, Value> {
    let mut map: Map<String, Value> = Map::new();
    for (name, value) in args {
        match map.get_mut(&name) {
            Some(Value::Array(values)) => values.push(Value::String(value)),
            Some(first) => *first = json!([first.clone(), value]),
            None => {
                map.insert(name, Value::String(value));
            }
        }
    }
    map
}

fn form(body: &[u8]) -> Map<String, Value> {
    let uri = Uri::try_from(format!("/?{}", String::from_utf8_lossy(body)));
    let parsed = uri.ok().and_then(|uri| Query::<Vec<(String, String)>>::try_from_uri(&uri).ok());
    pairs(parsed.map(|Query(args)| args).unwrap_or_default())
}

fn cookies(headers: &HeaderMap) -> Map<String, Value> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let cookies = lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    pairs(cookies.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn text(value: Option<&HeaderValue>) -> Option<String> {
    value.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
}

/// Filler, not secrets: the same seed gives the same bytes, as httpbin promises.
fn xorshift(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

fn uuid() -> String {
    let mut hex = crate::state::hex(&xorshift(clock_seed(), 16));
    hex.replace_range(12..13, "4");
    hex.replace_range(16..17, "8");
    [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)].map(|(from, to)| hex.get(from..to).unwrap_or_default()).join("-")
}

fn clock_seed() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |d| u64::from(d.subsec_nanos()) << 20 | 1)
}
