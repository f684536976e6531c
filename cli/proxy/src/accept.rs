//! Accepting: one thread per listener hands each connection to the worker that
//! has the fewest, so that a few clients still use every core.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::worker::{Command, WorkerHandle};

/// The threads that accept, until they are to stop.
#[derive(Default)]
pub(crate) struct Acceptors {
    threads: Mutex<Vec<(SocketAddr, JoinHandle<()>)>>,
    closed: Arc<AtomicBool>,
}

impl Acceptors {
    pub(crate) fn add(
        &self,
        socket: TcpListener,
        listener: usize,
        workers: Arc<Vec<WorkerHandle>>,
    ) -> io::Result<SocketAddr> {
        let address = socket.local_addr()?;
        let thread = spawn(socket, listener, workers, Arc::clone(&self.closed))?;
        self.lock().push((address, thread));
        Ok(address)
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed)
    }

    /// Refuses new connections; those open go on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut *self.lock());
        threads.iter().for_each(|(address, _)| unblock(*address));
        for (_, thread) in threads {
            let _ = thread.join();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(SocketAddr, JoinHandle<()>)>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between two tries while the process is out of file descriptors.
const BREATHER: Duration = Duration::from_millis(10);

fn spawn(
    socket: TcpListener,
    listener: usize,
    workers: Arc<Vec<WorkerHandle>>,
    closed: Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("accept".to_owned()).spawn(move || {
        loop {
            let accepted = socket.accept();
            if closed.load(Ordering::Relaxed) {
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
