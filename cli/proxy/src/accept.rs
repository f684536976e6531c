//! Accepting: one thread per listener hands each connection to the worker that
//! has the fewest, so that a few clients still use every core.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::worker::{Command, WorkerHandle};

/// Between two tries while the process is out of file descriptors.
const BREATHER: Duration = Duration::from_millis(10);

pub(crate) fn spawn(
    socket: TcpListener,
    listener: usize,
    workers: Arc<Vec<WorkerHandle>>,
    accepting: Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("accept".to_owned()).spawn(move || {
        loop {
            let accepted = socket.accept();
            if !accepting.load(Ordering::Relaxed) {
                return;
            }
            match accepted {
                Ok((stream, peer)) => hand_over(&workers, listener, stream, peer),
                Err(_) => thread::sleep(BREATHER),
            }
        }
    })
}

fn hand_over(workers: &[WorkerHandle], listener: usize, stream: TcpStream, peer: SocketAddr) {
    if stream.set_nonblocking(true).is_err() {
        return;
    }
    // The first is the main thread, which serves nobody.
    let least = workers.iter().skip(1).min_by_key(|worker| worker.load.load(Ordering::Relaxed));
    if let Some(worker) = least {
        worker.load.fetch_add(1, Ordering::Relaxed);
        let _ = worker.commands.send(Command::Connection { listener, stream, peer });
    }
}

/// A connection from ourselves, so that the thread notices it is to end.
pub(crate) fn unblock(mut address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let _ = TcpStream::connect_timeout(&address, Duration::from_secs(1));
}
