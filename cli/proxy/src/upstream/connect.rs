//! One connection to an endpoint, plain or TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::Target;
use crate::io::Io;

/// A connection with what has been read ahead from it.
pub(crate) struct Conn {
    pub(super) io: Io,
    pub(crate) buffer: BytesMut,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) endpoint: usize,
    /// It has carried a request before.
    pub(crate) reused: bool,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectError {
    Timeout,
    Failed(String),
}

/// How much is read at once.
const READ: usize = 16 << 10;

impl Conn {
    /// Connects within the cluster's connect timeout.
    pub(crate) async fn open(target: &Target, endpoint: usize) -> Result<Self, ConnectError> {
        target.stats.cx_total.inc();
        match tokio::time::timeout(target.config.connect_timeout, Self::connect(target, endpoint)).await {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(error)) => {
                target.stats.cx_connect_fail.inc();
                Err(ConnectError::Failed(reason(&error)))
            }
            Err(_) => {
                target.stats.cx_connect_fail.inc();
                target.stats.cx_connect_timeout.inc();
                Err(ConnectError::Timeout)
            }
        }
    }

    async fn connect(target: &Target, index: usize) -> io::Result<Self> {
        let endpoint =
            target.endpoints.get(index).ok_or_else(|| io::Error::other("the cluster has no such endpoint"))?;
        let tcp = match endpoint.address() {
            Some(address) => TcpStream::connect(address).await?,
            None => TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?,
        };
        tcp.set_nodelay(true)?;
        let (peer, local) = (tcp.peer_addr()?, tcp.local_addr()?);
        let io = match &target.tls {
            None => Io::plain(tcp),
            Some(connector) => {
                let sni = target.config.tls.as_ref().and_then(|tls| tls.sni.clone());
                let name = ServerName::try_from(sni.unwrap_or_else(|| endpoint.host.clone()))
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                Io::tls(connector.connect(name, tcp).await?)
            }
        };
        Ok(Self { io, buffer: BytesMut::new(), peer, local, endpoint: index, reused: false })
    }

    /// Reads more into the buffer; 0: the peer has closed.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(READ);
        pin!(self.io.read_buf(&mut self.buffer)).poll(cx)
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// An idle connection is good while it is silent.
    pub(crate) fn is_silent(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        self.poll_fill(&mut cx).is_pending()
    }
}

/// The error as the C library words it.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
