//! Envoy in a container, by Docker or Podman. On the same kernel it shares the
//! host's network and sees the instance's directory as a native one does; a
//! daemon in a virtual machine gets published ports, the host by name, and is
//! told of file changes, which its mounts do not carry.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{Exited, Launched, Published, Runner, arguments, lines, log};
use crate::adapters::docker::{self, Docker, HOST_NAME};
use crate::error::{Error, Result};
use crate::harness::{Kind, Topology};
use crate::logs::{Level, LogHub};
use crate::state::Child;

/// The image of this version: an official Envoy with V8.
pub const DEFAULT_IMAGE: &str = "envoyproxy/envoy:v1.40.0";

/// Its value is the directory of the Envoy that the container runs.
pub const LABEL: &str = "ai.softprobe.spctl.directory";

struct Contained {
    docker: Docker,
    id: String,
    removed: AtomicBool,
}

/// Whether Docker answers and has the image, which is pulled if need be.
pub async fn prepare_image(image: &str, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<()> {
    Docker::connect().await?.prepare(image, progress).await
}

/// Starts the container; it ends with its runner. What an earlier one of this
/// directory left is removed first.
pub(super) async fn launch(
    docker: Docker,
    image: &str,
    inside: &Topology,
    published: Option<Published>,
    directory: &Path,
    logs: &LogHub,
) -> Result<Launched> {
    if !docker.has_image(image).await? {
        return Err(Error::ImageMissing { image: image.to_owned(), reason: "it is not on this machine".into() });
    }
    let owner = directory.display().to_string();
    for (left, _) in docker.with_label(LABEL).await?.into_iter().filter(|(_, of)| *of == owner) {
        docker.remove(&left).await;
    }
    let mut command = vec!["envoy".to_owned()];
    command.extend(arguments(inside, directory));
    let ports: Vec<u16> = published.iter().flat_map(Published::ports).collect();
    let name = format!("spctl-{}-{}", inside.instance, std::process::id());
    let files = inside.own.as_ref().map_or(&[][..], |own| &own.files);
    let container =
        docker::Container { image, name: &name, label: (LABEL, owner), command, directory, files, ports: &ports };
    let id = docker.run(&container).await?;
    tokio::spawn(log::read(docker.stderr(&id), lines(Kind::Docker, inside), logs.clone()));
    let exited = watch_exit(docker.clone(), id.clone(), logs.clone());
    let runner = Contained { docker, id, removed: AtomicBool::new(false) };
    Ok(Launched { kind: Kind::Docker, runner: Box::new(runner), exited, published })
}

/// The topology as it looks from inside a virtual machine, and where its ports
/// are on the host.
pub(super) fn publish(topology: &Topology) -> Result<(Topology, Published)> {
    if topology.own.is_some() {
        return Err(Error::Usage(
            "a bootstrap of your own in Docker needs a daemon that shares this machine's kernel; use `--harness envoy`"
                .into(),
        ));
    }
    let mut inside = topology.clone();
    let mut listeners = Vec::new();
    for listener in &mut inside.listeners {
        let address = free(listener.address)?;
        listeners.push((listener.direction, address));
        listener.address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    }
    for cluster in &mut inside.clusters {
        let loopback = cluster.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) || cluster.host == "localhost";
        if loopback {
            cluster.host = HOST_NAME.into();
        }
    }
    Ok((inside, Published { admin: free(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?, listeners }))
}

/// A port has to be known before it can be published.
fn free(address: SocketAddr) -> Result<SocketAddr> {
    let taken = |_| Error::PortInUse { address: address.to_string(), flag: "--listen" };
    TcpListener::bind(address).and_then(|listener| listener.local_addr()).map_err(taken)
}

fn watch_exit(docker: Docker, id: String, logs: LogHub) -> Exited {
    let (tx, rx) = watch::channel(None);
    tokio::spawn(async move {
        let status = docker.ended(&id).await;
        logs.own(Level::Info, format!("the Envoy container has ended: {status}"));
        let _ = tx.send(Some(status));
    });
    rx
}

impl Runner for Contained {
    fn child(&self) -> Child {
        Child::Container { container: self.id.clone() }
    }

    fn changed<'a>(&'a self, file: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if !self.docker.in_machine {
                return Ok(());
            }
            // Renamed inside, where Envoy's watch hears of it.
            let (name, aside) = (file.display().to_string(), format!("{}.seen", file.display()));
            for (from, to) in [(&name, &aside), (&aside, &name)] {
                self.docker.exec(&self.id, vec!["mv".into(), "-f".into(), from.clone(), to.clone()]).await?;
            }
            Ok(())
        })
    }

    fn end(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.docker.stop(&self.id, grace).await;
            self.removed.store(true, Ordering::Relaxed);
        })
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if !self.removed.load(Ordering::Relaxed) {
            docker::remove_now(&self.id);
        }
    }
}
