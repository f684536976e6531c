//! Requests that plugins make, carried out.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use spctl_host::{Body, CallResponse, Callout, CalloutResult, HeaderKind, HeaderList};

use crate::http1::{self, Asked, BodyReader, Chunking, Event, Framing};
use crate::upstream::{Conn, ConnectError, Lease, Local};
use crate::worker::WorkerContext;

/// Envoy's `http.async_response_buffer_limit`.
const MAX_RESPONSE: usize = 32 << 20;
/// How often a call in flight is checked for still being wanted.
const CANCEL_CHECK: Duration = Duration::from_secs(1);

enum Failure {
    Connect(ConnectError),
    /// Nothing of a response came.
    Terminated,
    /// A response had begun, or was more than can be kept.
    Cut,
    Timeout,
    Cancelled,
}

/// Carries out one callout and calls the plugin back.
pub(crate) async fn carry_out(worker: Rc<WorkerContext>, mut callout: Callout) {
    let Some(local) = worker.pool.get(&callout.cluster).cloned() else {
        callout.answer.deliver(synthesized(503, ""));
        return;
    };
    // As Envoy's own client and router do, in this order.
    callout.headers.add(b"x-envoy-internal", b"true");
    if let Some(limit) = callout.timeout {
        callout.headers.add(b"x-envoy-expected-rq-timeout-ms", limit.as_millis().to_string().as_bytes());
    }
    let stats = &local.target.stats;
    stats.rq_total.inc();
    stats.rq_active.inc();
    let outcome = attempt(&local, &callout).await;
    stats.rq_active.dec();
    let result = match outcome {
        Ok(response) => {
            let code = response.headers.get(b":status").and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
            stats.count_response(code.unwrap_or(0));
            CalloutResult::Response(response)
        }
        Err(Failure::Cut) => CalloutResult::Reset,
        Err(Failure::Timeout) => {
            stats.rq_timeout.inc();
            synthesized(504, "upstream request timeout")
        }
        Err(Failure::Connect(ConnectError::Timeout)) => unreachable_upstream("connection timeout"),
        Err(Failure::Connect(ConnectError::Failed(_))) => unreachable_upstream("remote connection failure"),
        Err(Failure::Terminated) => unreachable_upstream("connection termination"),
        Err(Failure::Cancelled) => return,
    };
    callout.answer.deliver(result);
}

async fn attempt(local: &Rc<Local>, callout: &Callout) -> Result<CallResponse, Failure> {
    let exchange = exchange(local, callout);
    let limited = async {
        match callout.timeout {
            None => exchange.await,
            Some(limit) => tokio::time::timeout(limit, exchange).await.unwrap_or(Err(Failure::Timeout)),
        }
    };
    let mut limited = pin!(limited);
    loop {
        match tokio::time::timeout(CANCEL_CHECK, limited.as_mut()).await {
            Ok(outcome) => return outcome,
            Err(_) if callout.answer.is_cancelled() => return Err(Failure::Cancelled),
            Err(_) => {}
        }
    }
}

async fn exchange(local: &Rc<Local>, callout: &Callout) -> Result<CallResponse, Failure> {
    let Some(Lease { conn, endpoint, .. }) = local.lease() else { return Err(Failure::Terminated) };
    let started = Instant::now();
    if let Some(conn) = conn {
        match on_connection(local, conn, callout, started).await {
            // It may have closed just as it was taken: a fresh one decides.
            Err(Failure::Terminated) => {}
            outcome => return outcome,
        }
    }
    let conn = Conn::open(&local.target, endpoint).await.map_err(Failure::Connect)?;
    on_connection(local, conn, callout, started).await
}

async fn on_connection(
    local: &Rc<Local>,
    mut conn: Conn,
    callout: &Callout,
    started: Instant,
) -> Result<CallResponse, Failure> {
    let mut out = BytesMut::new();
    let mut headers = callout.headers.clone();
    headers.set_in_place(b"x-envoy-internal", b"true");
    if let Some(timeout) = callout.timeout {
        headers.set_in_place(b"x-envoy-expected-rq-timeout-ms", timeout.as_millis().to_string().as_bytes());
    }
    let chunking = http1::request_head(&mut out, &headers, callout.body.is_empty());
    match chunking {
        Chunking::Chunked => {
            http1::chunk(&mut out, &Body::from(callout.body.clone()));
            http1::end_of_chunks(&mut out);
        }
        _ => out.extend_from_slice(&callout.body),
    }
    write(&mut conn, &out).await?;
    let asked = if callout.headers.get(b":method") == Some(b"HEAD") { Asked::Head } else { Asked::Anything };
    let mut head_seen = 0;
    let response = loop {
        let headers = HeaderList::new(HeaderKind::Response);
        match http1::parse_response(&mut conn.buffer, &mut head_seen, headers, asked) {
            Err(_) => return Err(Failure::Terminated),
            Ok(Some(response)) if matches!(response.code, 100..=199) => {}
            Ok(Some(response)) => break response,
            Ok(None) => {
                if fill(&mut conn).await == 0 {
                    return Err(Failure::Terminated);
                }
            }
        }
    };
    let mut headers = response.headers;
    headers.set_in_place(b"x-envoy-upstream-service-time", started.elapsed().as_millis().to_string().as_bytes());
    let (body, trailers) = read_body(&mut conn, response.framing).await?;
    if !response.close && conn.buffer.is_empty() {
        local.put_back(conn);
    }
    Ok(CallResponse { headers, body, trailers })
}

async fn read_body(conn: &mut Conn, framing: Framing) -> Result<(bytes::Bytes, Option<HeaderList>), Failure> {
    let mut reader = BodyReader::new(framing, HeaderKind::ResponseTrailers);
    let mut body = BytesMut::new();
    loop {
        match reader.read(&mut conn.buffer).map_err(|_| Failure::Cut)? {
            Event::Data { data, end } => {
                data.chunks().for_each(|chunk| body.extend_from_slice(chunk));
                if body.len() > MAX_RESPONSE {
                    return Err(Failure::Cut);
                }
                if end {
                    return Ok((body.freeze(), None));
                }
            }
            Event::Trailers(trailers) => return Ok((body.freeze(), Some(trailers))),
            Event::Pending => {
                if fill(conn).await == 0 {
                    reader.on_eof().map_err(|_| Failure::Cut)?;
                }
            }
        }
    }
}

async fn write(conn: &mut Conn, mut bytes: &[u8]) -> Result<(), Failure> {
    while !bytes.is_empty() {
        match poll_fn(|cx| conn.poll_write(cx, bytes)).await {
            Ok(n) if n > 0 => bytes = &bytes[n..],
            _ => return Err(Failure::Terminated),
        }
    }
    poll_fn(|cx| match conn.poll_flush(cx) {
        Poll::Ready(result) => Poll::Ready(result.map_err(|_| Failure::Terminated)),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Reads more; 0 at the end, however it came.
async fn fill(conn: &mut Conn) -> usize {
    poll_fn(|cx| conn.poll_fill(cx)).await.unwrap_or(0)
}

fn unreachable_upstream(reason: &str) -> CalloutResult {
    let text = format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
    synthesized(503, &text)
}

/// An answer that Envoy makes up for a callout that got none.
fn synthesized(code: u16, body: &str) -> CalloutResult {
    let mut headers = HeaderList::new(HeaderKind::Response);
    headers.add(b":status", code.to_string().as_bytes());
    if !body.is_empty() {
        headers.add(b"content-length", body.len().to_string().as_bytes());
        headers.add(b"content-type", b"text/plain");
    }
    CalloutResult::Response(CallResponse { headers, body: body.to_owned().into(), trailers: None })
}
