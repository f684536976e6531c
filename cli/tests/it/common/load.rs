//! A load of requests, each with a path of its own, over keep-alive connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What became of the requests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    pub ok: u64,
    pub failed: u64,
}

/// Sends `count` requests (or until `stop`), `concurrency` at a time, with
/// paths `/status/200?n=<first>…`.
pub async fn run(address: SocketAddr, first: u64, count: u64, concurrency: usize, stop: Arc<AtomicBool>) -> Served {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..concurrency {
        let (next, stop) = (next.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            let mut served = Served::default();
            let mut sender = None;
            while !stop.load(Ordering::Relaxed) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    break;
                }
                match one(address, first + n, &mut sender).await {
                    Ok(true) => served.ok += 1,
                    Ok(false) | Err(_) => {
                        served.failed += 1;
                        sender = None;
                    }
                }
            }
            served
        }));
    }
    let mut total = Served::default();
    for task in tasks {
        let served = task.await.unwrap();
        total.ok += served.ok;
        total.failed += served.failed;
    }
    total
}

type Sender = http1::SendRequest<Empty<Bytes>>;

async fn one(
    address: SocketAddr,
    n: u64,
    sender: &mut Option<Sender>,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    if sender.as_ref().is_none_or(Sender::is_closed) {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (new, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        *sender = Some(new);
    }
    let Some(connection) = sender else { return Ok(false) };
    connection.ready().await?;
    let request = Request::get(format!("/load/{n}"))
        .header("host", "load.test")
        .header("user-agent", "load")
        .body(Empty::new())?;
    let response = connection.send_request(request).await?;
    let ok = response.status() == 200;
    let body = response.into_body().collect().await?;
    drop(body);
    Ok(ok)
}
