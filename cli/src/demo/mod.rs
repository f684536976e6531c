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
}

impl Demo {
    pub async fn start() -> Result<Self> {
        let inventory_via = Arc::new(OnceLock::new());
        let mut servers = Vec::new();
        let shop = serve(shop::router(inventory_via.clone()), &mut servers).await?;
        let inventory = serve(inventory::router(), &mut servers).await?;
        let httpbin = serve(httpbin::router(), &mut servers).await?;
        Ok(Self { shop, inventory, httpbin, inventory_via, servers })
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

async fn serve(router: Router, servers: &mut Vec<JoinHandle<()>>) -> Result<SocketAddr> {
    let failed = || Error::io("cannot listen on loopback");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed())?;
    let address = listener.local_addr().map_err(failed())?;
    servers.push(tokio::spawn(async move {
        // It ends with the instance.
        let _ = axum::serve(
            axum::serve::ListenerExt::tap_io(listener, |stream| {
                // Small answers must not wait for Nagle.
                let _ = stream.set_nodelay(true);
            }),
            router,
        )
        .await;
    }));
    Ok(address)
}
