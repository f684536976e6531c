//! One request, one connection, over TCP, TLS or a Unix socket; HTTP/1.1.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::tls::Tls;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Sends to a TCP address and reads the whole answer, within `timeout`.
pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>, timeout: Duration) -> io::Result<Answer> {
    let work = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        collect(open(stream, request).await?).await
    };
    tokio::time::timeout(timeout, work).await.map_err(|_| timed_out(timeout))?
}

/// The same over TLS.
pub async fn send_over_tls(
    address: SocketAddr,
    tls: &Tls,
    request: Request<Full<Bytes>>,
    timeout: Duration,
) -> io::Result<Answer> {
    let work = async {
        let stream = tls.connect(TcpStream::connect(address).await?).await?;
        collect(open(stream, request).await?).await
    };
    tokio::time::timeout(timeout, work).await.map_err(|_| timed_out(timeout))?
}

/// `GET` or `POST` of a path without a body.
pub async fn ask(address: SocketAddr, method: &str, path: &str, timeout: Duration) -> io::Result<Answer> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string())
        .body(Full::default())
        .map_err(io::Error::other)?;
    send(address, request, timeout).await
}

/// Sends over a Unix socket; the answer's body is left to be streamed.
pub async fn over_socket(socket: &Path, request: Request<Full<Bytes>>) -> io::Result<hyper::Response<Incoming>> {
    open(UnixStream::connect(socket).await?, request).await
}

/// Reads an answer to its end.
pub async fn collect(response: hyper::Response<Incoming>) -> io::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

async fn open<S>(stream: S, request: Request<Full<Bytes>>) -> io::Result<hyper::Response<Incoming>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Its end shows in the response; nothing to add here.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}

fn timed_out(timeout: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} ms", timeout.as_millis()))
}
