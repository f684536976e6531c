//! One request to an endpoint, whatever HTTP the cluster speaks.

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use spctl_host::{Body, HeaderList};

use super::http1::Http1Exchange;
use super::http2::Http2Exchange;
use super::{ConnectError, Lease, Local};
use crate::config::UpstreamProtocol;

/// Bytes on their way to a peer beyond which no more are taken from the other.
pub(crate) const HIGH_WATERMARK: usize = 256 << 10;

/// What an upstream did.
pub(crate) enum UpstreamEvent {
    Connected,
    Response { headers: HeaderList, code: u16, end: bool },
    Data { data: Body, end: bool },
    Trailers(HeaderList),
    Failed(Failure),
}

/// How an upstream failed, in the words of Envoy's answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    Connect(ConnectError),
    /// It closed, before or within the response.
    Terminated,
    /// It spoke no HTTP that can be read.
    Protocol,
    /// It gave this stream up.
    Reset,
    /// It gave this stream up without having acted on it.
    Refused,
}

impl Failure {
    /// Envoy's word for it.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Connect(ConnectError::Timeout) => "connection timeout",
            Self::Connect(ConnectError::Failed(_)) => "remote connection failure",
            Self::Terminated => "connection termination",
            Self::Protocol => "protocol error",
            Self::Reset => "remote reset",
            Self::Refused => "remote refused stream reset",
        }
    }

    /// What the transport said, if it was the transport's doing.
    pub(crate) fn transport(&self) -> Option<String> {
        match self {
            Self::Connect(ConnectError::Failed(why)) => Some(format!("delayed connect error: {why}")),
            _ => None,
        }
    }

    /// As the details of a response name it.
    pub(crate) fn details(&self) -> String {
        let reason = self.reason().replace(' ', "_");
        match self.transport() {
            Some(why) => format!("{reason}|{}", why.replace(' ', "_")),
            None => reason,
        }
    }

    /// What a client is told.
    pub(crate) fn status(&self) -> u16 {
        if *self == Self::Protocol { 502 } else { 503 }
    }
}

/// A request on its way, and its response.
pub(crate) struct UpstreamExchange {
    local: Rc<Local>,
    speaks: Speaks,
}

enum Speaks {
    Http1(Box<Http1Exchange>),
    Http2(Box<Http2Exchange>),
}

impl UpstreamExchange {
    /// Starts towards the endpoint of a lease. Nothing moves before it is polled.
    pub(crate) fn start(lease: Lease, headers: &HeaderList, end_stream: bool) -> Self {
        let local = Rc::clone(&lease.local);
        local.target.stats.rq_total.inc();
        local.target.stats.rq_active.inc();
        let speaks = match local.target.config.protocol {
            UpstreamProtocol::Http1 => Speaks::Http1(Box::new(Http1Exchange::start(lease, headers, end_stream))),
            UpstreamProtocol::Http2 => Speaks::Http2(Box::new(Http2Exchange::start(&lease, headers, end_stream))),
        };
        Self { local, speaks }
    }

    pub(crate) fn local(&self) -> &Rc<Local> {
        &self.local
    }

    /// Its own and the peer's address, once connected.
    pub(crate) fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match &self.speaks {
            Speaks::Http1(exchange) => exchange.addresses(),
            Speaks::Http2(exchange) => exchange.addresses(),
        }
    }

    /// When the first byte of the request left.
    pub(crate) fn first_sent(&self) -> Option<Instant> {
        match &self.speaks {
            Speaks::Http1(exchange) => exchange.first_sent,
            Speaks::Http2(exchange) => exchange.first_sent,
        }
    }

    pub(crate) fn send_data(&mut self, data: Body, end: bool) {
        match &mut self.speaks {
            Speaks::Http1(exchange) => exchange.send_data(&data, end),
            Speaks::Http2(exchange) => exchange.send_data(data, end),
        }
    }

    pub(crate) fn send_trailers(&mut self, trailers: &HeaderList) {
        match &mut self.speaks {
            Speaks::Http1(exchange) => exchange.send_trailers(trailers),
            Speaks::Http2(exchange) => exchange.send_trailers(trailers),
        }
    }

    pub(crate) fn wants_data(&self) -> bool {
        match &self.speaks {
            Speaks::Http1(exchange) => exchange.wants_data(),
            Speaks::Http2(exchange) => exchange.wants_data(),
        }
    }

    /// Connects, writes, reads; `read` is false while nobody can take more.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<UpstreamEvent> {
        match &mut self.speaks {
            Speaks::Http1(exchange) => exchange.poll(cx, read),
            Speaks::Http2(exchange) => exchange.poll(cx, read),
        }
    }
}

impl Drop for UpstreamExchange {
    fn drop(&mut self) {
        self.local.target.stats.rq_active.dec();
    }
}
