//! A connection from its beginning: TLS, and which HTTP it speaks.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::listener::LocalListener;
use super::stream::Peer;
use super::{http1, http2};
use crate::config::Codec;
use crate::io::Io;
use crate::worker::WorkerContext;

/// How long a client may take over its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<WorkerContext>, listener: Rc<LocalListener>, tcp: TcpStream, remote: SocketAddr) {
    let stats = &listener.shared.stats;
    let connection_id = worker.next_connection_id();
    stats.cx_total.inc();
    stats.cx_active.inc();
    if let Ok(local) = tcp.local_addr()
        && let Some(io) = secured(&listener, tcp).await
    {
        let peer = Peer { remote, local, connection_id, is_tls: io.is_tls() };
        speak(&worker, &listener, io, peer).await;
    }
    worker.unregister(connection_id);
    stats.cx_active.dec();
}

async fn secured(listener: &LocalListener, tcp: TcpStream) -> Option<Io> {
    let _ = tcp.set_nodelay(true);
    let Some(acceptor) = &listener.shared.tls else { return Some(Io::plain(tcp)) };
    let accepted = tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp)).await;
    accepted.ok()?.ok().map(Io::tls)
}

async fn speak(worker: &Rc<WorkerContext>, listener: &Rc<LocalListener>, io: Io, peer: Peer) {
    let http2 = match listener.shared.config.codec {
        Codec::Http2 => Some(io),
        Codec::Auto if io.is_http2() => Some(io),
        Codec::Auto | Codec::Http1 => http1::serve(worker, listener, io, peer).await,
    };
    if let Some(io) = http2 {
        http2::serve(worker, listener, io, peer).await;
    }
}
