//! What stands behind the labs' filters: an echo, statuses, and bodies with
//! secrets in all shapes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

/// Chunks are apart on the wire, so that a proxy reads them one by one.
const PAUSE: Duration = Duration::from_millis(40);

type Body = BoxBody<Bytes, std::convert::Infallible>;

pub async fn start() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let service = service_fn(|request| async move { Ok::<_, std::convert::Infallible>(answer(&request)) });
                // Its client may leave when it likes.
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap()
}

fn answer(request: &hyper::Request<Incoming>) -> Response<Body> {
    let response = Response::builder();
    let path = request.uri().path();
    if let Some(status) = path.strip_prefix("/status/") {
        return response.status(status.parse::<u16>().unwrap()).body(whole("")).unwrap();
    }
    match path {
        "/chunks" => response.body(pieces(&["a SEC", "RET=top", "sec", "ret b SECRET=", "x"], None)).unwrap(),
        "/sized" => response.body(whole(r#"{"k": "SECRET=topsecret"}"#)).unwrap(),
        "/coded" => response.header("content-encoding", "x-odd").body(whole("SECRET=coded")).unwrap(),
        "/trailers" => {
            let body = pieces(&["a SECRET", "=b"], Some(("x-end", "here")));
            response.header("trailer", "x-end").body(body).unwrap()
        }
        "/none" => response.status(204).body(whole("")).unwrap(),
        "/large" => {
            let body = ["x".repeat(1024 * 1024), "SECRET=y".to_owned(), " ".repeat(1024 * 1024)].concat();
            response.body(whole(body)).unwrap()
        }
        _ => response.header("content-type", "application/json").body(whole(echo(request))).unwrap(),
    }
}

fn echo(request: &hyper::Request<Incoming>) -> String {
    let varies = ["x-request-id", "x-envoy-expected-rq-timeout-ms"];
    let headers = request.headers().iter().filter(|(name, _)| !varies.contains(&name.as_str()));
    let headers: serde_json::Map<_, _> =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into())).collect();
    json!({"method": request.method().as_str(), "path": request.uri().path(), "headers": headers}).to_string()
}

fn whole(body: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(body.into()).boxed()
}

fn pieces(pieces: &'static [&'static str], trailer: Option<(&'static str, &'static str)>) -> Body {
    let data = pieces.iter().map(|piece| Frame::data(Bytes::from(*piece)));
    let end = trailer.map(|(name, value)| {
        Frame::trailers(HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]))
    });
    let frames = futures_util::stream::iter(data.chain(end)).then(|frame| async {
        tokio::time::sleep(PAUSE).await;
        Ok(frame)
    });
    BodyExt::boxed(StreamBody::new(frames))
}
