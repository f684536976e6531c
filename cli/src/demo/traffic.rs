//! The demo's traffic: a fixed list of requests, each with what it shows.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Method, Request};
use http_body_util::Full;

use crate::adapters::http::send;
use crate::error::{Error, Result};

/// Values that must never appear in database, logs or output. They pass
/// through the proxies as real secrets would.
pub mod secrets {
    pub const BEARER: &str = "demo-bearer-4f9c1e7a";
    pub const COOKIE: &str = "demo-cookie-8d2b6c35";
    pub const API_KEY: &str = "demo-apikey-17e0fa92";
    pub const PASSWORD: &str = "demo-password-c3a95d10";
    pub const CARD: &str = "4929-demo-card-7713";
    pub const TOKEN: &str = "demo-token-b7e2904d";

    pub const ALL: &[&str] = &[BEARER, COOKIE, API_KEY, PASSWORD, CARD, TOKEN];
}

/// More than the capture filter keeps of a body.
const LARGE_BODY: usize = 200_000;
const TIMEOUT: Duration = Duration::from_secs(10);

/// One request of the demo.
pub struct DemoRequest {
    pub shows: &'static str,
    pub method: Method,
    pub path: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    pub status: u16,
    /// Calls that the shop makes to the inventory for it.
    pub outbound: u64,
}

/// Exchanges that the demo produces: inbound and outbound legs.
pub fn exchanges() -> u64 {
    requests().iter().map(|request| 1 + request.outbound).sum()
}

/// The demo's requests, in order.
pub fn requests() -> Vec<DemoRequest> {
    let get = |shows, path, status, outbound| DemoRequest {
        shows,
        method: Method::GET,
        path,
        headers: Vec::new(),
        body: Bytes::new(),
        status,
        outbound,
    };
    let with = |mut request: DemoRequest, method: Method, content_type: &str, body: Bytes| {
        request.method = method;
        request.headers.push(("content-type", content_type.to_owned()));
        request.body = body;
        request
    };
    let json = |text: String| Bytes::from(text);
    let mut account = get("credentials, redacted", "/account", 200, 0);
    account.headers = vec![
        ("authorization", format!("Bearer {}", secrets::BEARER)),
        ("cookie", format!("theme=dark; session={}", secrets::COOKIE)),
        ("x-api-key", secrets::API_KEY.to_owned()),
    ];
    let mut packed = with(get("gzip request body", "/orders", 201, 1), Method::POST, "application/json", Bytes::new());
    packed.body = gzip(format!(r#"{{"items": ["kettle"], "password": "{}"}}"#, secrets::PASSWORD).as_bytes());
    packed.headers.push(("content-encoding", "gzip".into()));
    packed.status = 400;
    packed.outbound = 0;
    vec![
        get("an outbound call in the same trace", "/products", 200, 1),
        get("a 404 from the inventory, passed on", "/products/spoon", 404, 1),
        with(
            get("a JSON order with a card number", "/orders", 201, 1),
            Method::POST,
            "application/json",
            json(format!(r#"{{"items": ["tea"], "cardNumber": "{}", "note": "quick, please"}}"#, secrets::CARD)),
        ),
        packed,
        with(
            get("a form with a password", "/login", 303, 0),
            Method::POST,
            "application/x-www-form-urlencoded",
            json(format!("user=ada&password={}", secrets::PASSWORD)),
        ),
        account,
        get("a key in the query", "/search?q=tea&api_key=demo-apikey-17e0fa92", 200, 0),
        with(
            get("a multipart upload", "/upload", 201, 0),
            Method::POST,
            "multipart/form-data; boundary=demo-boundary",
            multipart(),
        ),
        get("a gzip answer with a secret inside", "/report", 200, 0),
        get("server-sent events, chunk by chunk", "/events", 200, 0),
        with(
            get("a body over the cap", "/import", 200, 0),
            Method::POST,
            "text/csv",
            Bytes::from("tea,4.50\n".repeat(LARGE_BODY / 9)),
        ),
        with(
            get("a change", "/orders/o-77", 200, 0),
            Method::PUT,
            "application/json",
            json(r#"{"quantity": 2}"#.into()),
        ),
        DemoRequest { method: Method::DELETE, ..get("a 204", "/orders/o-77", 204, 0) },
        get("a path nobody serves", "/nowhere", 404, 0),
        get("a server error", "/broken", 500, 0),
    ]
}

/// Sends them all through the proxy, one after the other. `sent` hears of each.
pub async fn send_all(proxy: SocketAddr, session: &str, mut sent: impl FnMut(usize, &DemoRequest)) -> Result<()> {
    for (n, request) in requests().into_iter().enumerate() {
        sent(n, &request);
        let mut message = Request::builder()
            .method(request.method.clone())
            .uri(request.path)
            .header("host", "shop.demo")
            .header("user-agent", concat!("spctl/", env!("CARGO_PKG_VERSION")))
            .header("x-sp-session-id", session);
        for (name, value) in &request.headers {
            message = message.header(*name, value);
        }
        let what = format!("{} {}", request.method, request.path.split('?').next().unwrap_or_default());
        let message =
            message.body(Full::from(request.body.clone())).map_err(|e| Error::Demo(format!("{what}: {e}")))?;
        let answer = send(proxy, message, TIMEOUT).await.map_err(|e| Error::Demo(format!("{what}: {e}")))?;
        if answer.status.as_u16() != request.status {
            return Err(Error::Demo(format!("{what} answered {}, not {}", answer.status.as_u16(), request.status)));
        }
    }
    Ok(())
}

fn multipart() -> Bytes {
    let part =
        |head: &str, body: &str| format!("--demo-boundary\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n");
    let text = part("name=\"title\"", "receipt")
        + &part("name=\"password\"", secrets::PASSWORD)
        + &part("name=\"file\"; filename=\"receipt.txt\"\r\nContent-Type: text/plain", "1 x tea 4.50")
        + "--demo-boundary--\r\n";
    Bytes::from(text)
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to a Vec cannot fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default().into()
}
