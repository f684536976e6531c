//! A downstream HTTP/2 connection: each of its streams is a task of its own.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use spctl_host::{Body, HeaderKind, HeaderList, Protocol};
use tokio::task::JoinSet;

use super::downstream::Downstream;
use super::listener::LocalListener;
use super::stream::{Arrival, Peer, Step, Stream};
use crate::http1::MAX_HEAD;
use crate::http2::{self, Outgoing};
use crate::io::Io;
use crate::worker::WorkerContext;

/// Envoy's default `max_concurrent_streams`.
const MAX_STREAMS: u32 = 1024;
/// What is read ahead of a filter or an upstream that waits, per stream.
const STREAM_WINDOW: u32 = 1 << 20;
/// Envoy's default `initial_connection_window_size`.
const CONNECTION_WINDOW: u32 = 24 << 20;

/// Serves one connection to its end.
pub(super) async fn serve(worker: &Rc<WorkerContext>, listener: &Rc<LocalListener>, io: Io, peer: Peer) {
    let handshake = server::Builder::new()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .handshake::<_, Bytes>(io);
    let Ok(mut connection) = handshake.await else {
        listener.shared.stats.cx_protocol_error.inc();
        return;
    };
    let mut streams = JoinSet::new();
    let mut leaving = false;
    poll_fn(|cx| {
        worker.register(peer.connection_id, cx.waker());
        if worker.is_stopped() {
            return Poll::Ready(());
        }
        if worker.is_draining() && !leaving {
            leaving = true;
            connection.graceful_shutdown();
        }
        while let Poll::Ready(Some(_)) = streams.poll_join_next(cx) {}
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let stream = Http2Stream::start(worker, listener, peer, request, respond);
                    streams.spawn_local(stream.run(Rc::clone(worker)));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    // Streams see for themselves that the connection has gone.
    while !worker.is_stopped() && streams.join_next().await.is_some() {}
}

struct Http2Stream {
    stream: Option<Stream>,
    body: RecvStream,
    body_ended: bool,
    response: Http2Response,
}

impl Http2Stream {
    fn start(
        worker: &Rc<WorkerContext>,
        listener: &Rc<LocalListener>,
        peer: Peer,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> Self {
        let (head, body) = request.into_parts();
        let headers = http2::request_headers(&head);
        let body_ended = body.is_end_stream();
        let mut response = Http2Response { respond, sending: None, out: Outgoing::default(), failed: false };
        let arrival = Arrival {
            expects_continue: headers.get(b"expect").is_some_and(|expect| expect.eq_ignore_ascii_case(b"100-continue")),
            headers,
            end_stream: body_ended,
            protocol: Protocol::Http2,
            close: false,
            upgrade: head.extensions.get::<h2::ext::Protocol>().is_some(),
        };
        let stream = Stream::start(worker, listener, peer, arrival, &mut response);
        Self { stream: Some(stream), body, body_ended, response }
    }

    async fn run(mut self, worker: Rc<WorkerContext>) {
        poll_fn(|cx| if worker.is_stopped() { Poll::Ready(()) } else { self.poll(cx) }).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.response.poll_reset(cx).is_ready() {
                if let Some(stream) = &mut self.stream {
                    stream.on_reset();
                }
                return Poll::Ready(());
            }
            let Some(stream) = &mut self.stream else {
                return if self.response.flush(cx) { Poll::Ready(()) } else { Poll::Pending };
            };
            match stream.poll(cx, &mut self.response) {
                Step::Progress => continue,
                Step::Done { .. } => {
                    self.stream = None;
                    continue;
                }
                Step::Cut => {
                    self.response.reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(());
                }
                Step::Pending => {}
            }
            if self.response.failed {
                self.response.reset(Reason::PROTOCOL_ERROR);
                return Poll::Ready(());
            }
            let unsent = self.response.unsent();
            self.response.flush(cx);
            let moved = self.response.unsent() < unsent;
            if !self.poll_body(cx) && !moved {
                return Poll::Pending;
            }
        }
    }

    /// Takes what has come of the request's body; true if anything has.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stream) = self.stream.as_mut().filter(|stream| !self.body_ended && stream.wants_body()) else {
            return false;
        };
        match self.body.poll_data(cx) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(data))) => {
                let _ = self.body.flow_control().release_capacity(data.len());
                self.body_ended = self.body.is_end_stream();
                stream.on_data(Body::from(data), self.body_ended);
                return true;
            }
            Poll::Ready(Some(Err(_))) => {
                // The next look at the response says how the stream ended.
                self.body_ended = true;
                return true;
            }
            Poll::Ready(None) => {}
        }
        match self.body.poll_trailers(cx) {
            Poll::Pending => return false,
            Poll::Ready(Ok(Some(map))) => stream.on_trailers(http2::trailers(&map, HeaderKind::RequestTrailers)),
            Poll::Ready(Ok(None)) => stream.on_data(Body::new(), true),
            Poll::Ready(Err(_)) => {}
        }
        self.body_ended = true;
        true
    }
}

/// A response as HTTP/2.
struct Http2Response {
    respond: SendResponse<Bytes>,
    sending: Option<SendStream<Bytes>>,
    out: Outgoing,
    /// A filter made headers that HTTP/2 cannot say.
    failed: bool,
}

impl Http2Response {
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.sending {
            Some(sending) => sending.poll_reset(cx),
            None if self.out.is_sent() => return Poll::Pending,
            None => self.respond.poll_reset(cx),
        };
        reset.map(|_| ())
    }

    /// Hands over what can go; true once everything is on its way.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(sending) = &mut self.sending else { return self.out.is_sent() };
        self.out.flush(sending, cx).is_err() || self.out.is_sent()
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.sending {
            Some(sending) => sending.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

impl Downstream for Http2Response {
    fn proceed(&mut self) {
        let mut interim = http::Response::new(());
        *interim.status_mut() = http::StatusCode::CONTINUE;
        let _ = self.respond.send_informational(interim);
    }

    fn headers(&mut self, headers: &HeaderList, end_stream: bool) {
        let sent = http2::to_response(headers).ok().and_then(|head| self.respond.send_response(head, end_stream).ok());
        self.failed = sent.is_none();
        if end_stream {
            self.out.set_sent();
        } else {
            self.sending = sent;
        }
    }

    fn data(&mut self, data: Body, end_stream: bool) {
        self.out.push(data, end_stream);
    }

    fn trailers(&mut self, trailers: Option<&HeaderList>) {
        match trailers.and_then(|trailers| http2::to_map(trailers).ok()) {
            Some(map) => self.out.push_trailers(map),
            None => self.out.push(Body::new(), true),
        }
    }

    fn unsent(&self) -> usize {
        self.out.unsent()
    }
}
