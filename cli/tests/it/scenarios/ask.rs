//! The client of a scenario: asks as it says and writes down what came back.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::format::{Cut, Request};
use super::observe::Answered;
use super::servers::{CHUNK_PAUSE, expanded, paced, pairs};

/// A request that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far apart requests begin that are under way at once.
const APART: Duration = Duration::from_millis(60);
/// When a client goes away that waits for its response.
const TIRED: Duration = Duration::from_millis(150);
/// A proxy that has closed nothing for so long has said all it will.
const SILENCE: Duration = Duration::from_millis(400);

pub fn nothing() -> Answered {
    Answered { status: 0, headers: Vec::new(), body: String::new(), trailers: Vec::new(), complete: false }
}

/// One answer for each request, in their order.
pub async fn all(proxy: SocketAddr, requests: &[Request], together: bool) -> Vec<Answered> {
    let ask = |n: usize, request: Request| async move {
        let pause = if together { APART * u32::try_from(n).unwrap() } else { Duration::ZERO };
        tokio::time::sleep(pause + Duration::from_millis(request.after_ms)).await;
        let hung = Answered { body: "<no answer in time>".into(), ..nothing() };
        tokio::time::timeout(PATIENCE, one(proxy, &request)).await.unwrap_or(hung)
    };
    if together {
        let all = requests.iter().cloned().enumerate().map(|(n, request)| ask(n, request));
        return futures_util::future::join_all(all).await;
    }
    let mut answers = Vec::new();
    for request in requests {
        answers.push(ask(0, request.clone()).await);
    }
    answers
}

async fn one(proxy: SocketAddr, request: &Request) -> Answered {
    // A scenario may have killed the proxy: that is for the comparison to show.
    let Ok(stream) = TcpStream::connect(proxy).await else {
        return Answered { body: "<nobody listens>".into(), ..nothing() };
    };
    stream.set_nodelay(true).unwrap();
    if let Some(raw) = &request.raw {
        return exactly(stream, raw.as_bytes()).await;
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let sent = sender.send_request(message(request));
    let answered = match request.cut {
        Some(Cut::InBody) => {
            let chunks = u32::try_from(request.body.len()).unwrap();
            let _ = tokio::time::timeout(CHUNK_PAUSE * (chunks + 1), sent).await;
            nothing()
        }
        Some(Cut::Waiting) => {
            let _ = tokio::time::timeout(TIRED, sent).await;
            nothing()
        }
        Some(Cut::InResponse) => match sent.await {
            Ok(mut response) => {
                let _ = response.body_mut().frame().await;
                nothing()
            }
            Err(_) => nothing(),
        },
        None => match sent.await {
            Ok(response) => read(response).await,
            Err(_) => nothing(),
        },
    };
    if request.cut.is_some() {
        connection.abort();
    }
    answered
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>;

fn message(request: &Request) -> hyper::Request<Body> {
    let mut message = hyper::Request::builder().method(request.method.as_str()).uri(&request.path);
    if !request.headers.iter().any(|(name, _)| name == "host") {
        message = message.header("host", "scenario.test");
    }
    for (name, value) in &request.headers {
        message = message.header(name, value);
    }
    let mut frames: Vec<Result<Frame<Bytes>, std::convert::Infallible>> =
        request.body.iter().map(|chunk| Ok(Frame::data(Bytes::from(expanded(chunk))))).collect();
    if request.sized {
        message = message.header("content-length", request.body.iter().map(|c| expanded(c).len()).sum::<usize>());
    }
    if !request.trailers.is_empty() {
        let mut trailers = http::HeaderMap::new();
        for (name, value) in &request.trailers {
            trailers.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let names: Vec<&str> = request.trailers.iter().map(|(n, _)| n.as_str()).collect();
        message = message.header("trailer", names.join(", "));
        frames.push(Ok(Frame::trailers(trailers)));
    }
    let body = if frames.is_empty() {
        http_body_util::Empty::<Bytes>::new().boxed_unsync()
    } else if request.cut == Some(Cut::InBody) {
        let endless = futures_util::stream::pending();
        http_body_util::StreamBody::new(futures_util::StreamExt::chain(paced(frames), endless)).boxed_unsync()
    } else {
        http_body_util::StreamBody::new(paced(frames)).boxed_unsync()
    };
    message.body(body).unwrap()
}

async fn read(response: hyper::Response<hyper::body::Incoming>) -> Answered {
    let (head, mut body) = response.into_parts();
    let mut answered = Answered { status: head.status.as_u16(), headers: pairs(&head.headers), ..nothing() };
    let mut bytes = Vec::new();
    answered.complete = true;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) if frame.is_data() => bytes.extend_from_slice(&frame.into_data().unwrap()),
            Ok(frame) => answered.trailers = pairs(&frame.into_trailers().unwrap()),
            Err(_) => {
                answered.complete = false;
                break;
            }
        }
    }
    answered.body = String::from_utf8_lossy(&bytes).into_owned();
    answered
}

/// Writes bytes as they are; what comes back is taken apart no further than
/// its head. When a proxy closes its side is up to its timers.
async fn exactly(mut stream: TcpStream, bytes: &[u8]) -> Answered {
    stream.write_all(bytes).await.unwrap();
    let mut got = Vec::new();
    let mut part = [0; 4096];
    while let Ok(Ok(n @ 1..)) = tokio::time::timeout(SILENCE, stream.read(&mut part)).await {
        got.extend_from_slice(&part[..n]);
    }
    let text = String::from_utf8_lossy(&got).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    Answered { status, headers, body: body.to_owned(), complete: status != 0, ..nothing() }
}
