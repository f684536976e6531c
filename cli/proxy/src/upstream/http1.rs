//! One request on an HTTP/1.1 connection: connecting, sending, reading the
//! response.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use spctl_host::{Body, HeaderKind, HeaderList};

use super::exchange::{Failure, HIGH_WATERMARK, UpstreamEvent};
use super::{Conn, ConnectError, Lease, Local};
use crate::http1::{self, Asked, BodyReader, Chunking, Event, Framing};

type Connecting = Pin<Box<dyn Future<Output = Result<Conn, ConnectError>>>>;

enum State {
    Connecting(Connecting),
    Connected(Conn),
    Closed,
}

/// One request to one endpoint.
pub(super) struct Http1Exchange {
    local: Rc<Local>,
    state: State,
    out: BytesMut,
    chunking: Chunking,
    asked: Asked,
    head_seen: usize,
    /// All of the request is in `out`, or gone.
    request_ended: bool,
    /// The whole request, while it may be sent once more.
    replay: Option<BytesMut>,
    reader: Option<BodyReader>,
    keep: bool,
    /// It takes no more of the request.
    refused: bool,
    done: bool,
    pub(super) first_sent: Option<Instant>,
}

impl Http1Exchange {
    /// Starts towards the endpoint of a lease; the head is written at once.
    pub(super) fn start(lease: Lease, headers: &HeaderList, end_stream: bool) -> Self {
        let Lease { conn, endpoint, local } = lease;
        let mut out = BytesMut::new();
        let chunking = http1::request_head(&mut out, headers, end_stream);
        let reused = conn.is_some();
        // A connection may close just as it is used again. A request without a
        // body that the endpoint cannot have acted on twice is sent anew.
        let repeatable = matches!(headers.get(b":method"), Some(b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE"));
        let replay = (reused && end_stream && repeatable).then(|| out.clone());
        let state = match conn {
            Some(conn) => State::Connected(conn),
            None => State::Connecting(connecting(&local, endpoint)),
        };
        Self {
            local,
            state,
            out,
            chunking,
            asked: if headers.get(b":method") == Some(b"HEAD") { Asked::Head } else { Asked::Anything },
            head_seen: 0,
            request_ended: end_stream,
            replay,
            reader: None,
            keep: false,
            refused: false,
            done: false,
            first_sent: None,
        }
    }

    /// Its own and the peer's address, once connected.
    pub(super) fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match &self.state {
            State::Connected(conn) => Some((conn.local, conn.peer)),
            _ => None,
        }
    }

    pub(super) fn send_data(&mut self, data: &Body, end: bool) {
        self.request_ended |= end;
        if self.refused {
            return;
        }
        match self.chunking {
            Chunking::Chunked => {
                http1::chunk(&mut self.out, data);
                if end {
                    http1::end_of_chunks(&mut self.out);
                }
            }
            _ => data.chunks().for_each(|part| self.out.extend_from_slice(part)),
        }
    }

    pub(super) fn send_trailers(&mut self, trailers: &HeaderList) {
        if self.chunking == Chunking::Chunked {
            match Some(trailers).filter(|_| self.local.target.config.enable_trailers) {
                Some(trailers) => http1::trailers(&mut self.out, trailers),
                None => http1::end_of_chunks(&mut self.out),
            }
        }
        self.request_ended = true;
    }

    pub(super) fn wants_data(&self) -> bool {
        self.out.len() < HIGH_WATERMARK
    }

    /// Connects, writes, reads; `read` is false while nobody can take more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<UpstreamEvent> {
        loop {
            match &mut self.state {
                State::Connecting(connecting) => match connecting.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(conn)) => {
                        self.state = State::Connected(conn);
                        return Poll::Ready(UpstreamEvent::Connected);
                    }
                    Poll::Ready(Err(error)) => return self.fail(Failure::Connect(error)),
                },
                State::Closed => return Poll::Pending,
                State::Connected(_) => {
                    // An upstream that reads no more may have answered already:
                    // what it said decides.
                    if self.poll_write(cx).is_err() {
                        self.out.clear();
                        self.refused = true;
                    }
                    if !read || self.done {
                        return Poll::Pending;
                    }
                    match self.poll_read(cx) {
                        Ok(Some(event)) => return Poll::Ready(event),
                        Ok(None) if matches!(self.state, State::Connecting(_)) => {}
                        Ok(None) => return Poll::Pending,
                        Err(failure) => return self.fail(failure),
                    }
                }
            }
        }
    }

    fn fail(&mut self, failure: Failure) -> Poll<UpstreamEvent> {
        self.state = State::Closed;
        Poll::Ready(UpstreamEvent::Failed(failure))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), ()> {
        let State::Connected(conn) = &mut self.state else { return Ok(()) };
        while !self.out.is_empty() {
            match conn.poll_write(cx, &self.out) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    self.first_sent.get_or_insert_with(Instant::now);
                    self.out.advance(n);
                }
                Poll::Ready(_) => return Err(()),
                Poll::Pending => return Ok(()),
            }
        }
        match conn.poll_flush(cx) {
            Poll::Ready(Err(_)) => Err(()),
            _ => Ok(()),
        }
    }

    /// Sends the request once more on a fresh connection, if that is safe.
    fn retry(&mut self) -> bool {
        let State::Connected(conn) = &self.state else { return false };
        let endpoint = conn.endpoint;
        let Some(replay) = self.replay.take() else { return false };
        self.out = replay;
        self.refused = false;
        self.state = State::Connecting(connecting(&self.local, endpoint));
        true
    }

    /// None: wait, or the state has changed.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Option<UpstreamEvent>, Failure> {
        loop {
            let State::Connected(conn) = &mut self.state else { return Ok(None) };
            let at_end = self.reader.as_ref().is_some_and(BodyReader::is_at_end);
            if (at_end || !conn.buffer.is_empty())
                && let Some(event) = self.parse()?
            {
                return Ok(Some(event));
            }
            let State::Connected(conn) = &mut self.state else { return Ok(None) };
            match conn.poll_fill(cx) {
                Poll::Pending => return Ok(None),
                Poll::Ready(Ok(n)) if n > 0 => self.replay = None,
                Poll::Ready(_) => {
                    if self.reader.is_none() && self.retry() {
                        return Ok(None);
                    }
                    return self.at_eof().map(Some);
                }
            }
        }
    }

    fn at_eof(&mut self) -> Result<UpstreamEvent, Failure> {
        self.keep = false;
        let ended = self.reader.as_mut().is_some_and(|reader| reader.on_eof().is_ok());
        if !ended {
            return Err(Failure::Terminated);
        }
        self.done = true;
        Ok(UpstreamEvent::Data { data: Body::new(), end: true })
    }

    fn parse(&mut self) -> Result<Option<UpstreamEvent>, Failure> {
        let State::Connected(conn) = &mut self.state else { return Ok(None) };
        let Some(reader) = &mut self.reader else {
            let headers = HeaderList::new(HeaderKind::Response);
            let response = http1::parse_response(&mut conn.buffer, &mut self.head_seen, headers, self.asked);
            let Some(response) = response.map_err(|_| Failure::Protocol)? else { return Ok(None) };
            if matches!(response.code, 100 | 102..=199) {
                // Interim answers end here, as Envoy's do by default.
                return self.parse();
            }
            self.keep = !response.close;
            self.reader = Some(BodyReader::new(response.framing, HeaderKind::ResponseTrailers));
            self.done = response.framing == Framing::None;
            let end = self.done;
            return Ok(Some(UpstreamEvent::Response { headers: response.headers, code: response.code, end }));
        };
        let event = reader.read(&mut conn.buffer).map_err(|_| Failure::Protocol)?;
        self.done = reader.is_done();
        Ok(match event {
            Event::Pending => None,
            Event::Data { data, end } => Some(UpstreamEvent::Data { data, end }),
            Event::Trailers(trailers) if self.local.target.config.enable_trailers => {
                Some(UpstreamEvent::Trailers(trailers))
            }
            Event::Trailers(_) => Some(UpstreamEvent::Data { data: Body::new(), end: true }),
        })
    }
}

fn connecting(local: &Rc<Local>, endpoint: usize) -> Connecting {
    let target = local.target.clone();
    Box::pin(async move { Conn::open(&target, endpoint).await })
}

impl Drop for Http1Exchange {
    /// Keeps the connection when both messages are through.
    fn drop(&mut self) {
        if self.done && self.keep && !self.refused && self.request_ended && self.out.is_empty() {
            let state = std::mem::replace(&mut self.state, State::Closed);
            if let State::Connected(conn) = state
                && conn.buffer.is_empty()
            {
                self.local.put_back(conn);
            }
        }
    }
}
