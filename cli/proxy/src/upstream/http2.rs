//! One request as a stream of an HTTP/2 connection.
//!
//! Whoever needs a stream to a cluster, callouts among them, starts it here by
//! way of [`super::UpstreamExchange`]: headers, then data and trailers as they
//! come; headers, data, trailers or a failure come back.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use spctl_host::{Body, HeaderKind, HeaderList};

use super::exchange::{Failure, HIGH_WATERMARK, UpstreamEvent};
use super::{ConnectError, Lease, Session};
use crate::http2::{self, Outgoing};

type Connecting = Pin<Box<dyn Future<Output = Result<Session, ConnectError>>>>;

enum State {
    Connecting { connecting: Connecting, request: Option<Box<Request<()>>> },
    Waiting(ResponseFuture),
    Reading(RecvStream),
    Closed,
}

pub(super) struct Http2Exchange {
    state: State,
    sending: Option<SendStream<Bytes>>,
    out: Outgoing,
    /// The head is all there is to send.
    end_stream: bool,
    addresses: Option<(SocketAddr, SocketAddr)>,
    pub(super) first_sent: Option<Instant>,
}

impl Http2Exchange {
    pub(super) fn start(lease: &Lease, headers: &HeaderList, end_stream: bool) -> Self {
        let (local, endpoint) = (Rc::clone(&lease.local), lease.endpoint);
        let connecting = Box::pin(async move { local.session(endpoint).await });
        Self {
            state: State::Connecting { connecting, request: http2::to_request(headers).ok().map(Box::new) },
            sending: None,
            out: Outgoing::default(),
            end_stream,
            addresses: None,
            first_sent: None,
        }
    }

    pub(super) fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.addresses
    }

    pub(super) fn send_data(&mut self, data: Body, end: bool) {
        self.out.push(data, end);
    }

    pub(super) fn send_trailers(&mut self, trailers: &HeaderList) {
        match http2::to_map(trailers) {
            Ok(map) => self.out.push_trailers(map),
            Err(_) => self.out.push(Body::new(), true),
        }
    }

    pub(super) fn wants_data(&self) -> bool {
        self.out.unsent() < HIGH_WATERMARK
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<UpstreamEvent> {
        if let Some(sending) = &mut self.sending
            && self.out.flush(sending, cx).is_err()
        {
            // What the peer said decides: it may have answered and gone.
            self.sending = None;
        }
        let event = match &mut self.state {
            State::Closed => return Poll::Pending,
            State::Connecting { connecting, request } => match connecting.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => Err(Failure::Connect(error)),
                Poll::Ready(Ok(session)) => {
                    let request = request.take();
                    self.send_head(session, request)
                }
            },
            State::Waiting(response) => match Pin::new(response).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => Err(failure(&error)),
                Poll::Ready(Ok(response)) => {
                    let (head, body) = response.into_parts();
                    let end = body.is_end_stream();
                    self.state = State::Reading(body);
                    let code = head.status.as_u16();
                    Ok(UpstreamEvent::Response { headers: http2::response_headers(&head), code, end })
                }
            },
            State::Reading(_) if !read => return Poll::Pending,
            State::Reading(body) => match poll_body(body, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(event) => event,
            },
        };
        Poll::Ready(event.unwrap_or_else(|failure| {
            self.state = State::Closed;
            UpstreamEvent::Failed(failure)
        }))
    }

    fn send_head(&mut self, mut session: Session, request: Option<Box<Request<()>>>) -> Result<UpstreamEvent, Failure> {
        let request = request.ok_or(Failure::Protocol)?;
        self.addresses = Some((session.local, session.peer));
        self.first_sent = Some(Instant::now());
        let (response, sending) =
            session.sender.send_request(*request, self.end_stream).map_err(|error| failure(&error))?;
        self.state = State::Waiting(response);
        self.sending = (!self.end_stream).then_some(sending);
        Ok(UpstreamEvent::Connected)
    }
}

fn poll_body(body: &mut RecvStream, cx: &mut Context<'_>) -> Poll<Result<UpstreamEvent, Failure>> {
    match body.poll_data(cx) {
        Poll::Pending => return Poll::Pending,
        Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failure(&error))),
        Poll::Ready(Some(Ok(data))) => {
            let _ = body.flow_control().release_capacity(data.len());
            let end = body.is_end_stream();
            return Poll::Ready(Ok(UpstreamEvent::Data { data: Body::from(data), end }));
        }
        Poll::Ready(None) => {}
    }
    match body.poll_trailers(cx) {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Err(error)) => Poll::Ready(Err(failure(&error))),
        Poll::Ready(Ok(None)) => Poll::Ready(Ok(UpstreamEvent::Data { data: Body::new(), end: true })),
        Poll::Ready(Ok(Some(map))) => {
            Poll::Ready(Ok(UpstreamEvent::Trailers(http2::trailers(&map, HeaderKind::ResponseTrailers))))
        }
    }
}

fn failure(error: &h2::Error) -> Failure {
    match error.reason() {
        _ if error.is_io() || error.is_go_away() && error.is_remote() => Failure::Terminated,
        Some(Reason::REFUSED_STREAM) => Failure::Refused,
        Some(_) if error.is_remote() => Failure::Reset,
        Some(_) => Failure::Protocol,
        None => Failure::Terminated,
    }
}
