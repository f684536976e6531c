//! gRPC calls and streams that plugins open, carried over HTTP/2.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use spctl_host::{Body, GrpcCallout, GrpcOutgoing, GrpcStream};

use crate::upstream::{UpstreamEvent, UpstreamExchange};
use crate::worker::WorkerContext;

/// Carries one call or stream until it ends; the plugin is told as it goes.
pub(crate) async fn carry_out(worker: Rc<WorkerContext>, mut callout: GrpcCallout) {
    let stream = Rc::clone(&callout.stream);
    let Some(lease) = worker.pool.get(&callout.cluster).cloned().and_then(|local| local.lease()) else {
        stream.on_local_reply("no healthy upstream", "no_healthy_upstream");
        return;
    };
    callout.headers.add(b"x-envoy-internal", b"true");
    if let Some(limit) = callout.timeout {
        callout.headers.add(b"x-envoy-expected-rq-timeout-ms", limit.as_millis().to_string().as_bytes());
    }
    let mut upstream = UpstreamExchange::start(lease, &callout.headers, false);
    let mut answered = false;
    let carried = poll_fn(|cx| poll(&mut upstream, &stream, &mut answered, cx));
    match callout.timeout {
        None => carried.await,
        Some(limit) => {
            if tokio::time::timeout(limit, carried).await.is_err() {
                stream.on_local_reply("upstream request timeout", "response_timeout");
            }
        }
    }
}

/// Sends what there is to send and tells what has come; ready once it is over.
fn poll(upstream: &mut UpstreamExchange, stream: &GrpcStream, answered: &mut bool, cx: &mut Context<'_>) -> Poll<()> {
    stream.set_waker(cx.waker());
    loop {
        while let Some(outgoing) = stream.next_outgoing() {
            match outgoing {
                GrpcOutgoing::Data { data, end_stream } => upstream.send_data(Body::from(data), end_stream),
                GrpcOutgoing::Reset => return Poll::Ready(()),
            }
        }
        if stream.is_over() {
            return Poll::Ready(());
        }
        let Poll::Ready(event) = upstream.poll(cx, true) else { return Poll::Pending };
        match event {
            UpstreamEvent::Connected => {}
            UpstreamEvent::Response { headers, end, .. } => {
                *answered = true;
                stream.on_headers(headers, end);
            }
            UpstreamEvent::Data { data, end } => stream.on_data(&data.to_vec(), end),
            UpstreamEvent::Trailers(trailers) => stream.on_trailers(trailers),
            UpstreamEvent::Failed(_) if *answered => stream.on_reset(),
            UpstreamEvent::Failed(failure) => {
                let text = "upstream connect error or disconnect/reset before headers. reset reason: ";
                let details = format!("upstream_reset_before_response_started{{{}}}", failure.details());
                stream.on_local_reply(&format!("{text}{}", failure.reason()), &details);
            }
        }
    }
}
