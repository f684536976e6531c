//! Upstream and callout clusters of a scenario: they answer as it says and
//! write down what they were asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::format::{Answer, Reset};
use super::grpc;
use super::observe::Seen;

/// Chunks are apart on the wire, so that a proxy reads them one by one.
pub const CHUNK_PAUSE: Duration = Duration::from_millis(40);

#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        if answer.down {
            return server;
        }
        let seen = server.seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (answer, seen) = (answer.clone(), seen.clone());
                if answer.grpc.is_some() {
                    tokio::spawn(grpc::serve(stream, answer, seen));
                    continue;
                }
                tokio::spawn(async move {
                    let service = service_fn(move |request| reply(request, answer.clone(), seen.clone()));
                    // A reset is meant to be seen by the other side only.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// Frames with a pause between them.
pub type Paced<E> = futures_util::stream::BoxStream<'static, Result<Frame<Bytes>, E>>;

type Body = StreamBody<Paced<std::io::Error>>;

async fn reply(
    request: hyper::Request<Incoming>,
    answer: Answer,
    seen: Arc<Mutex<Vec<Seen>>>,
) -> Result<hyper::Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let headers = pairs(&head.headers);
    let (method, path) = (head.method.to_string(), head.uri.to_string());
    let complete = body.collect().await;
    let (body, trailers) = match complete {
        Ok(collected) => {
            let trailers = collected.trailers().map(pairs).unwrap_or_default();
            (String::from_utf8_lossy(&collected.to_bytes()).into_owned(), trailers)
        }
        Err(_) => ("<cut>".to_owned(), Vec::new()),
    };
    seen.lock().unwrap().push(Seen { method, path, headers, body, trailers });
    tokio::time::sleep(Duration::from_millis(answer.delay_ms)).await;
    let cut = || std::io::Error::other("reset by scenario");
    if answer.reset == Reset::BeforeHeaders {
        return Err(cut());
    }
    let mut response = hyper::Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    let mut frames: Vec<Result<Frame<Bytes>, std::io::Error>> =
        answer.body.iter().map(|chunk| Ok(Frame::data(Bytes::from(expanded(chunk))))).collect();
    if answer.reset == Reset::InBody {
        frames.truncate(1);
        frames.push(Err(cut()));
    } else if !answer.trailers.is_empty() {
        let mut trailers = http::HeaderMap::new();
        for (name, value) in &answer.trailers {
            trailers.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let names: Vec<&str> = answer.trailers.iter().map(|(n, _)| n.as_str()).collect();
        response = response.header("trailer", names.join(", "));
        frames.push(Ok(Frame::trailers(trailers)));
    }
    Ok(response.body(StreamBody::new(paced(frames))).unwrap())
}

/// `x*5000` stands for so many bytes.
pub fn expanded(chunk: &str) -> String {
    match chunk.split_once('*') {
        Some((unit, count)) if count.parse::<usize>().is_ok() => unit.repeat(count.parse().unwrap()),
        _ => chunk.to_owned(),
    }
}

/// The frames with a pause before each but the first.
pub fn paced<E: Send + 'static>(frames: Vec<Result<Frame<Bytes>, E>>) -> Paced<E> {
    let frames = frames.into_iter().enumerate();
    Box::pin(futures_util::stream::unfold(frames, |mut frames| async move {
        let (n, frame) = frames.next()?;
        if n > 0 {
            tokio::time::sleep(CHUNK_PAUSE).await;
        }
        Some((frame, frames))
    }))
}

pub fn pairs(headers: &http::HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}
