//! The demo application and the built-in upstream, inside spctl so that they
//! run everywhere: a shop that calls an inventory, an httpbin-compatible
//! service, and the traffic that shows them. All on loopback.

mod httpbin;
mod inventory;
mod shop;
pub mod traffic;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// The three services, each on a free port.
pub struct Demo {
    shop: SocketAddr,
    inventory: SocketAddr,
    httpbin: SocketAddr,
    /// Where the shop reaches the inventory: the outbound listener, once there is one.
    inventory_via: Arc<OnceLock<SocketAddr>>,
    servers: Vec<JoinHandle<()>>,
    /// Ends the inventory when it is dropped; none: it does not run.
    inventory_runs: Mutex<Option<watch::Sender<()>>>,
}

impl Demo {
    pub async fn start() -> Result<Self> {
        let inventory_via = Arc::new(OnceLock::new());
        let mut servers = Vec::new();
        let shop = serve(shop::router(inventory_via.clone()), &mut servers).await?;
        let (inventory, runs) = serve_inventory(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let httpbin = serve(httpbin::router(), &mut servers).await?;
        Ok(Self { shop, inventory, httpbin, inventory_via, servers, inventory_runs: Mutex::new(Some(runs)) })
    }

    pub fn shop(&self) -> SocketAddr {
        self.shop
    }

    pub fn inventory(&self) -> SocketAddr {
        self.inventory
    }

    pub fn httpbin(&self) -> SocketAddr {
        self.httpbin
    }

    /// From now on the shop calls the inventory through this listener.
    pub fn call_inventory_at(&self, listener: SocketAddr) {
        // Set once, at the start; a second call would change nothing.
        let _ = self.inventory_via.set(listener);
    }

    /// Stops the inventory, connections and all, or starts it again where it was.
    pub async fn run_inventory(&self, runs: bool) -> Result<()> {
        let mut running = self.inventory_runs.lock().await;
        match (runs, running.is_some()) {
            (true, false) => *running = Some(serve_inventory(self.inventory).await?.1),
            (false, _) => *running = None,
            (true, true) => {}
        }
        Ok(())
    }

    pub fn stop(&self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves the inventory until the sender is dropped.
async fn serve_inventory(address: SocketAddr) -> Result<(SocketAddr, watch::Sender<()>)> {
    let failed = || Error::io("cannot listen on loopback");
    let listener = TcpListener::bind(address).await.map_err(failed())?;
    let address = listener.local_addr().map_err(failed())?;
    let (runs, mut ended) = watch::channel(());
    tokio::spawn(async move {
        let ended = async move { while ended.changed().await.is_ok() {} };
        // An accept error is retried inside.
        let _ = axum::serve(no_delay(listener), inventory::router()).with_graceful_shutdown(ended).await;
    });
    Ok((address, runs))
}

fn no_delay(
    listener: TcpListener,
) -> axum::serve::TapIo<TcpListener, impl FnMut(&mut tokio::net::TcpStream) + Send + 'static> {
    axum::serve::ListenerExt::tap_io(listener, |stream: &mut tokio::net::TcpStream| {
        // Small answers must not wait for Nagle.
        let _ = stream.set_nodelay(true);
    })
}

async fn serve(router: Router, servers: &mut Vec<JoinHandle<()>>) -> Result<SocketAddr> {
    let failed = || Error::io("cannot listen on loopback");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed())?;
    let address = listener.local_addr().map_err(failed())?;
    servers.push(tokio::spawn(async move {
        // It ends with the instance.
        let _ = axum::serve(no_delay(listener), router).await;
    }));
    Ok(address)
}
