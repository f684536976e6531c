//! HTTP/2 connections to endpoints, each shared by all streams of its worker.

use std::net::SocketAddr;
use std::task::Poll;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::Mutex;

use super::{Conn, ConnectError, Target};

/// Envoy's default `initial_stream_window_size` is larger; what is read ahead of
/// filters that wait is kept to this.
const STREAM_WINDOW: u32 = 1 << 20;
/// Envoy's default `initial_connection_window_size`.
const CONNECTION_WINDOW: u32 = 24 << 20;

/// A connection, ready for a stream.
#[derive(Clone)]
pub(crate) struct Session {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
}

/// The connection to one endpoint, when there is one.
#[derive(Default)]
pub(super) struct Shared(Mutex<Option<Session>>);

impl Shared {
    /// The connection there is, or a new one within the connect timeout.
    pub(super) async fn session(&self, target: &Target, endpoint: usize) -> Result<Session, ConnectError> {
        let mut shared = self.0.lock().await;
        if let Some(session) = &mut *shared
            && is_alive(session).await
        {
            return Ok(session.clone());
        }
        let opened = open(target, endpoint).await?;
        *shared = Some(opened.clone());
        Ok(opened)
    }
}

/// Neither closed nor told to go away; waits for nothing.
async fn is_alive(session: &mut Session) -> bool {
    std::future::poll_fn(|cx| match session.sender.poll_ready(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(false),
        _ => Poll::Ready(true),
    })
    .await
}

async fn open(target: &Target, endpoint: usize) -> Result<Session, ConnectError> {
    let Conn { io, local, peer, .. } = Conn::open(target, endpoint).await?;
    let failed = |error: h2::Error| ConnectError::Failed(error.to_string());
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .enable_push(false)
        .handshake(io)
        .await
        .map_err(failed)?;
    tokio::task::spawn_local(async move {
        // Streams are told of an error themselves.
        let _ = connection.await;
    });
    Ok(Session { sender, local, peer })
}
