//! A downstream HTTP/1.1 connection: requests one after the other.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use spctl_host::{Body, HeaderKind, HeaderList, Protocol};
use tokio::io::{AsyncReadExt, AsyncWrite, Interest};
use tokio::time::Sleep;

use super::downstream::{Encoder, Http1Response};
use super::listener::LocalListener;
use super::stream::{Arrival, Close, Peer, Step, Stream};
use crate::config::Codec;
use crate::http1::{self, BadRequest, BodyReader, Event, Framing, Request};
use crate::io::Io;
use crate::worker::WorkerContext;

/// How much is read at once.
const READ: usize = 16 << 10;
/// Requests that were sent ahead wait in the buffer up to this much.
const READ_AHEAD: usize = 64 << 10;
/// Envoy's `delayed_close_timeout`: how long a client may take to read the last
/// answer before the connection goes.
const LINGER: Duration = Duration::from_secs(1);

/// How often a client that is not read from is looked after.
const PROBE: Duration = Duration::from_secs(1);
/// Written before more is made.
const FLUSH: usize = 64 << 10;

/// What a client says first that speaks HTTP/2 without being asked.
const PREFACE: &[u8] = b"PRI * HTTP/2";

struct Connection {
    worker: Rc<WorkerContext>,
    listener: Rc<LocalListener>,
    io: Io,
    peer: Peer,
    input: BytesMut,
    /// How far the end of the next head has been looked for.
    head_seen: usize,
    output: BytesMut,
    encoder: Encoder,
    /// The body of the request under way.
    body: BodyReader,
    stream: Option<Stream>,
    /// Nothing has been read yet: it may still be another protocol.
    fresh: bool,
    /// No request follows the one that is being answered.
    closing: Option<Close>,
    lingering: Option<Pin<Box<Sleep>>>,
    probe: Option<Pin<Box<Sleep>>>,
}

/// Serves one connection until it ends or turns out to be HTTP/2, which is
/// given back with what has been read.
pub(super) async fn serve(worker: &Rc<WorkerContext>, listener: &Rc<LocalListener>, io: Io, peer: Peer) -> Option<Io> {
    let config = &listener.shared.config;
    let mut connection = Connection {
        worker: Rc::clone(worker),
        listener: Rc::clone(listener),
        io,
        peer,
        input: BytesMut::new(),
        head_seen: 0,
        output: BytesMut::new(),
        encoder: Encoder::new(config.enable_trailers),
        body: BodyReader::new(Framing::None, HeaderKind::RequestTrailers),
        stream: None,
        fresh: config.codec == Codec::Auto,
        closing: None,
        lingering: None,
        probe: None,
    };
    let end = poll_fn(|cx| {
        worker.register(peer.connection_id, cx.waker());
        connection.poll(cx)
    })
    .await;
    let Connection { mut io, input, .. } = connection;
    (end == End::Http2).then(|| {
        io.unread(input);
        io
    })
}

/// How the work on a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Http2,
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if self.worker.is_stopped() {
                return Poll::Ready(End::Closed);
            }
            if let Some(lingering) = &mut self.lingering {
                if lingering.as_mut().poll(cx).is_ready() || self.poll_discard(cx).is_ready() {
                    return Poll::Ready(End::Closed);
                }
                return Poll::Pending;
            }
            if self.fresh && !self.input.is_empty() {
                // As Envoy, which looks at the first bytes alone.
                self.fresh = false;
                if self.input.starts_with(PREFACE) {
                    return Poll::Ready(End::Http2);
                }
            }
            let progress = if self.stream.is_some() { self.poll_stream(cx) } else { self.poll_request(cx) };
            match progress {
                Poll::Ready(true) if self.output.len() < FLUSH => {}
                Poll::Ready(false) => return Poll::Ready(End::Closed),
                // Written when there is nothing else to do, so that what comes
                // together leaves together.
                _ => {
                    let unsent = self.output.len();
                    if self.poll_flush(cx).is_err() {
                        self.disconnected();
                        return Poll::Ready(End::Closed);
                    }
                    if progress.is_pending() && self.output.len() == unsent {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.output.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.output) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.output.advance(n),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.reserve(READ);
        pin!(self.io.read_buf(&mut self.input)).poll(cx)
    }

    /// What a client still sends after the last answer is of no interest.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.input.clear();
            match self.poll_fill(cx) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn disconnected(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.on_disconnect();
        }
        self.stream = None;
    }

    /// Between streams: the next request, or the end. False: close now.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Some(close) = self.closing {
            if !self.output.is_empty() {
                return Poll::Pending;
            }
            if close == Close::Now && pin!(tokio::io::AsyncWriteExt::shutdown(&mut self.io)).poll(cx).is_pending() {
                return Poll::Pending;
            }
            // The client reads the answer undisturbed by a reset that bytes it
            // had sent and nobody read would cause.
            self.lingering = Some(Box::pin(tokio::time::sleep(LINGER)));
            return Poll::Ready(true);
        }
        if !self.input.is_empty() && self.output.len() < READ_AHEAD {
            let headers = HeaderList::new(HeaderKind::Request);
            match http1::parse_request(&mut self.input, &mut self.head_seen, headers) {
                Ok(None) => {}
                Ok(Some(request)) => {
                    let (worker, listener) = (&self.worker, &self.listener);
                    self.body = BodyReader::new(request.framing, HeaderKind::RequestTrailers);
                    self.encoder.answer(request.headers.get(b":method") == Some(b"HEAD"));
                    let mut response = Http1Response { out: &mut self.output, encoder: &mut self.encoder };
                    let arrival = arrival(request, self.body.is_done());
                    self.stream = Some(Stream::start(worker, listener, self.peer, arrival, &mut response));
                    return Poll::Ready(true);
                }
                Err(bad) => {
                    self.refuse(bad);
                    return Poll::Ready(true);
                }
            }
        }
        if self.worker.is_draining() && self.input.is_empty() {
            self.closing = Some(Close::Delayed);
            return Poll::Ready(true);
        }
        match self.poll_fill(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(n)) if n > 0 => Poll::Ready(true),
            Poll::Ready(_) => Poll::Ready(false),
        }
    }

    /// Answers what cannot be read as Envoy does, and closes.
    fn refuse(&mut self, bad: BadRequest) {
        self.listener.shared.stats.cx_protocol_error.inc();
        self.input.clear();
        self.body = BodyReader::new(Framing::None, HeaderKind::RequestTrailers);
        self.encoder.answer(false);
        self.stream = Some(Stream::refuse(&self.worker, &self.listener, self.peer, bad));
    }

    /// While nothing is read, a client that leaves is seen only by looking.
    fn poll_client_gone(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let probe = self.probe.get_or_insert_with(|| Box::pin(tokio::time::sleep(PROBE)));
        if probe.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.probe = None;
        let gone = match pin!(self.io.tcp().ready(Interest::READABLE)).poll(cx) {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if gone {
            self.disconnected();
        }
        Poll::Ready(!gone)
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(true) };
        let mut response = Http1Response { out: &mut self.output, encoder: &mut self.encoder };
        match stream.poll(cx, &mut response) {
            Step::Progress => return Poll::Ready(true),
            Step::Done { close } => {
                self.closing = close;
                self.stream = None;
                return Poll::Ready(true);
            }
            Step::Cut => {
                // What has been written still goes out; no more comes.
                self.closing = Some(Close::Delayed);
                self.stream = None;
                return Poll::Ready(true);
            }
            Step::Pending => {}
        }
        let mut progress = false;
        while stream.wants_body() && (!self.input.is_empty() || self.body.is_at_end()) {
            match self.body.read(&mut self.input) {
                Ok(Event::Pending) => break,
                Ok(Event::Data { data, end }) => stream.on_data(data, end),
                Ok(Event::Trailers(trailers)) if self.listener.shared.config.enable_trailers => {
                    stream.on_trailers(trailers);
                }
                Ok(Event::Trailers(_)) => stream.on_data(Body::new(), true),
                Err(bad) => {
                    self.listener.shared.stats.cx_protocol_error.inc();
                    stream.refuse_rest(bad.into());
                    return Poll::Ready(true);
                }
            }
            progress = true;
        }
        if progress {
            return Poll::Ready(true);
        }
        let reads = if stream.is_request_complete() { self.input.len() < READ_AHEAD } else { stream.wants_body() };
        if !reads {
            return self.poll_client_gone(cx);
        }
        match self.poll_fill(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(n)) if n > 0 => Poll::Ready(true),
            // Envoy takes the end of what a client sends for its leaving.
            Poll::Ready(_) => {
                self.disconnected();
                Poll::Ready(false)
            }
        }
    }
}

fn arrival(request: Request, end_stream: bool) -> Arrival {
    Arrival {
        upgrade: request.tunnel && request.headers.get(b":method") != Some(b"CONNECT"),
        headers: request.headers,
        end_stream,
        protocol: Protocol::Http11,
        close: request.close,
        expects_continue: request.expects_continue,
    }
}
