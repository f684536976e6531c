//! A downstream connection: requests one after the other.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use spctl_host::{HeaderKind, HeaderList};
use tokio::io::{AsyncReadExt, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::listener::LocalListener;
use super::stream::{Close, Peer, Step, Stream};
use crate::http1::{self, BadRequest};
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

struct Connection {
    worker: Rc<WorkerContext>,
    listener: Rc<LocalListener>,
    io: TcpStream,
    peer: Peer,
    input: BytesMut,
    /// How far the end of the next head has been looked for.
    head_seen: usize,
    output: BytesMut,
    stream: Option<Stream>,
    /// No request follows the one that is being answered.
    closing: Option<Close>,
    lingering: Option<Pin<Box<Sleep>>>,
    probe: Option<Pin<Box<Sleep>>>,
}

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<WorkerContext>, listener: Rc<LocalListener>, io: TcpStream, remote: SocketAddr) {
    let _ = io.set_nodelay(true);
    let Ok(local) = io.local_addr() else { return };
    let peer = Peer { remote, local, connection_id: worker.next_connection_id() };
    let stats = &listener.shared.stats;
    stats.cx_total.inc();
    stats.cx_active.inc();
    let mut connection = Connection {
        worker: Rc::clone(&worker),
        listener: Rc::clone(&listener),
        io,
        peer,
        input: BytesMut::new(),
        head_seen: 0,
        output: BytesMut::new(),
        stream: None,
        closing: None,
        lingering: None,
        probe: None,
    };
    poll_fn(|cx| {
        worker.register(peer.connection_id, cx.waker());
        connection.poll(cx)
    })
    .await;
    drop(connection);
    worker.unregister(peer.connection_id);
    listener.shared.stats.cx_active.dec();
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.worker.is_stopped() {
                return Poll::Ready(());
            }
            if let Some(lingering) = &mut self.lingering {
                if lingering.as_mut().poll(cx).is_ready() || self.poll_discard(cx).is_ready() {
                    return Poll::Ready(());
                }
                return Poll::Pending;
            }
            let progress = if self.stream.is_some() { self.poll_stream(cx) } else { self.poll_request(cx) };
            match progress {
                Poll::Ready(true) if self.output.len() < FLUSH => {}
                Poll::Ready(false) => return Poll::Ready(()),
                // Written when there is nothing else to do, so that what comes
                // together leaves together.
                _ => {
                    let unsent = self.output.len();
                    if self.poll_flush(cx).is_err() {
                        self.disconnected();
                        return Poll::Ready(());
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
        Ok(())
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
                    self.stream = Some(Stream::start(worker, listener, self.peer, request, &mut self.output));
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
        self.stream = Some(Stream::refuse(&self.worker, &self.listener, self.peer, bad));
    }

    /// While nothing is read, a client that leaves is seen only by looking.
    fn poll_client_gone(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let probe = self.probe.get_or_insert_with(|| Box::pin(tokio::time::sleep(PROBE)));
        if probe.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.probe = None;
        let gone = match pin!(self.io.ready(Interest::READABLE)).poll(cx) {
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
        match stream.poll(cx, &mut self.output) {
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
        while stream.has_body(&self.input) {
            match stream.on_body(&mut self.input) {
                Ok(true) => progress = true,
                Ok(false) => break,
                Err(bad) => {
                    self.listener.shared.stats.cx_protocol_error.inc();
                    stream.refuse_rest(bad);
                    return Poll::Ready(true);
                }
            }
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
