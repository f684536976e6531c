//! A TCP connection, plain or within TLS, with bytes read ahead of whoever
//! speaks on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

pub(crate) struct Io {
    kind: Kind,
    ahead: BytesMut,
}

enum Kind {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self { kind: Kind::Tcp(tcp), ahead: BytesMut::new() }
    }

    pub(crate) fn tls(tls: impl Into<TlsStream<TcpStream>>) -> Self {
        Self { kind: Kind::Tls(Box::new(tls.into())), ahead: BytesMut::new() }
    }

    /// Puts back what has been read.
    pub(crate) fn unread(&mut self, bytes: BytesMut) {
        self.ahead = bytes;
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        match &self.kind {
            Kind::Tcp(tcp) => tcp,
            Kind::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Both sides agreed on HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        match &self.kind {
            Kind::Tcp(_) => false,
            Kind::Tls(tls) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.kind, Kind::Tls(_))
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let n = self.ahead.len().min(out.remaining());
            out.put_slice(&self.ahead[..n]);
            self.ahead.advance(n);
            return Poll::Ready(Ok(()));
        }
        match &mut self.kind {
            Kind::Tcp(io) => Pin::new(io).poll_read(cx, out),
            Kind::Tls(io) => Pin::new(io).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Tcp(io) => Pin::new(io).poll_write(cx, bytes),
            Kind::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Tcp(_) => Poll::Ready(Ok(())),
            Kind::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Kind::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
