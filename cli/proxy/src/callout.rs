//! Requests that plugins make, carried out.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use spctl_host::{Body, CallResponse, Callout, CalloutResult, HeaderKind, HeaderList};

use crate::upstream::{self, Local, UpstreamEvent, UpstreamExchange};
use crate::worker::WorkerContext;

/// Envoy's `http.async_response_buffer_limit`.
const MAX_RESPONSE: usize = 32 << 20;
/// How often a call in flight is checked for still being wanted.
const CANCEL_CHECK: Duration = Duration::from_secs(1);

enum Failure {
    /// Nothing of a response came.
    Upstream(upstream::Failure),
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
    let outcome = attempt(&local, &callout).await;
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
        Err(Failure::Upstream(failure)) => unreachable_upstream(&failure),
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
    let Some(lease) = local.lease() else { return Err(Failure::Upstream(upstream::Failure::Terminated)) };
    let started = Instant::now();
    let end_stream = callout.body.is_empty();
    let mut upstream = UpstreamExchange::start(lease, &callout.headers, end_stream);
    if !end_stream {
        upstream.send_data(Body::from(callout.body.clone()), true);
    }
    let mut answer: Option<HeaderList> = None;
    let mut body = BytesMut::new();
    loop {
        let (ended, trailers) = match poll_fn(|cx| upstream.poll(cx, true)).await {
            UpstreamEvent::Connected => continue,
            UpstreamEvent::Response { mut headers, end, .. } => {
                let took = started.elapsed().as_millis().to_string();
                headers.set_in_place(b"x-envoy-upstream-service-time", took.as_bytes());
                answer = Some(headers);
                (end, None)
            }
            UpstreamEvent::Data { data, end } => {
                data.chunks().for_each(|chunk| body.extend_from_slice(chunk));
                if body.len() > MAX_RESPONSE {
                    return Err(Failure::Cut);
                }
                (end, None)
            }
            UpstreamEvent::Trailers(trailers) => (true, Some(trailers)),
            UpstreamEvent::Failed(_) if answer.is_some() => return Err(Failure::Cut),
            UpstreamEvent::Failed(failure) => return Err(Failure::Upstream(failure)),
        };
        if ended {
            let headers = answer.unwrap_or_default();
            return Ok(CallResponse { headers, body: body.freeze(), trailers });
        }
    }
}

fn unreachable_upstream(failure: &upstream::Failure) -> CalloutResult {
    let reason = failure.reason();
    let text = format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
    synthesized(failure.status(), &text)
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
