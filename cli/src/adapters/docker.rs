//! Docker's API as Docker Engine, Docker Desktop and Podman speak it: images,
//! containers, their output and their end. The only module that names bollard.

mod job;
mod stderr;

pub use job::{Job, JobContainer, Output, Package};

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::API_DEFAULT_VERSION;
use bollard::errors::Error as ApiError;
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;

use crate::error::{Error, Result};

/// A local daemon answers at once or not at all.
const ANSWER: Duration = Duration::from_secs(5);
/// Creating and starting may wait for a busy disk.
const API_TIMEOUT_S: u64 = 120;
/// How a container names the host when the daemon runs in a virtual machine.
pub const HOST_NAME: &str = "host.docker.internal";

/// A daemon that answers.
#[derive(Clone)]
pub struct Docker {
    api: bollard::Docker,
    /// The daemon has a kernel of its own, so host network and file events of
    /// the host do not reach its containers.
    pub in_machine: bool,
    podman: bool,
}

/// A container to run. It stays when it ends, for its last lines and its exit
/// status; and a daemon with live-restore spares it, unlike one that is to be
/// removed: whoever runs it removes it.
pub struct Container<'a> {
    pub image: &'a str,
    pub name: &'a str,
    /// Key and value.
    pub label: (&'a str, String),
    pub command: Vec<String>,
    /// Mounted at the same path.
    pub directory: &'a Path,
    /// Mounted read-only, each at its own path.
    pub files: &'a [PathBuf],
    /// TCP ports to publish on the host's loopback; where the host's network is shared, none.
    pub ports: &'a [u16],
}

impl Docker {
    /// The daemon of `DOCKER_HOST`, else the first socket that answers where
    /// Docker, Docker Desktop, Colima and Podman put theirs.
    pub async fn connect() -> Result<Self> {
        let mut looked_in = Vec::new();
        for socket in sockets()? {
            if let Err(error) = UnixStream::connect(&socket) {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    return Err(Error::DockerForbidden { socket });
                }
                looked_in.push(format!("{}: {error}", socket.display()));
                continue;
            }
            match tokio::time::timeout(ANSWER, open(&socket)).await {
                Ok(Ok(docker)) => return Ok(docker),
                Ok(Err(error)) => looked_in.push(format!("{}: {error}", socket.display())),
                Err(_) => looked_in.push(format!("{}: no answer within {} s", socket.display(), ANSWER.as_secs())),
            }
        }
        Err(Error::DockerMissing { looked_in })
    }

    /// Whether the image is there already.
    pub async fn has_image(&self, image: &str) -> Result<bool> {
        match self.api.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(error) => Err(failed("look for an image", &error)),
        }
    }

    /// Pulls the image unless it is there.
    pub async fn prepare(&self, image: &str, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<()> {
        if self.has_image(image).await? { Ok(()) } else { self.pull(image, progress).await }
    }

    /// Pulls an image; `progress` hears of bytes fetched and bytes known of.
    pub async fn pull(&self, image: &str, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<()> {
        let options = CreateImageOptionsBuilder::new().from_image(&tagged(image)).build();
        let mut layers: HashMap<String, (u64, u64)> = HashMap::new();
        let mut events = std::pin::pin!(self.api.create_image(Some(options), None, None));
        while let Some(event) = events.next().await {
            let missing = |reason: String| Error::ImageMissing { image: image.to_owned(), reason };
            let event = event.map_err(|e| missing(explain(&e)))?;
            if let Some(reason) = event.error_detail.and_then(|detail| detail.message) {
                return Err(missing(reason));
            }
            if let (Some(layer), Some(detail)) = (event.id, event.progress_detail) {
                let bytes = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                layers.insert(layer, (bytes(detail.current), bytes(detail.total)));
                progress(layers.values().map(|l| l.0).sum(), layers.values().map(|l| l.1).sum());
            }
        }
        Ok(())
    }

    /// Creates and starts; returns the container's id. Nothing stays when it
    /// cannot be started.
    pub async fn run(&self, container: &Container<'_>) -> Result<String> {
        let options = CreateContainerOptionsBuilder::new().name(container.name).build();
        let created = self
            .api
            .create_container(Some(options), self.body(container))
            .await
            .map_err(|e| failed("create a container", &e))?;
        if let Err(error) = self.api.start_container(&created.id, None).await {
            self.remove(&created.id).await;
            return Err(failed("start the container", &error));
        }
        Ok(created.id)
    }

    fn body(&self, container: &Container<'_>) -> ContainerCreateBody {
        let directory = container.directory.display();
        let files = container.files.iter().map(|file| format!("{0}:{0}:ro", file.display()));
        let binds = std::iter::once(format!("{directory}:{directory}")).chain(files).collect();
        let ports = container.ports.iter().map(|port| {
            let at = PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port.to_string()) };
            (format!("{port}/tcp"), Some(vec![at]))
        });
        let (program, arguments) = container.command.split_first().map_or((None, &[][..]), |(p, a)| (Some(p), a));
        // Files are the user's own and private: the container is that user.
        let user = format!("{}:{}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        ContainerCreateBody {
            image: Some(container.image.to_owned()),
            user: Some(user),
            labels: Some(HashMap::from([(container.label.0.to_owned(), container.label.1.clone())])),
            entrypoint: program.map(|program| vec![program.clone()]),
            cmd: Some(arguments.to_vec()),
            exposed_ports: Some(container.ports.iter().map(|port| format!("{port}/tcp")).collect()),
            host_config: Some(HostConfig {
                binds: Some(binds),
                network_mode: (!self.in_machine).then(|| "host".to_owned()),
                port_bindings: Some(ports.collect()),
                extra_hosts: self.in_machine.then(|| vec![format!("{HOST_NAME}:host-gateway")]),
                userns_mode: (self.podman && !rustix::process::getuid().is_root()).then(|| "keep-id".to_owned()),
                cap_drop: Some(vec!["ALL".into()]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// Waits for the container's end and says how it ended. A daemon that goes
    /// away is waited for: it may keep its containers.
    pub async fn ended(&self, id: &str) -> String {
        loop {
            let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
            let mut waiting = std::pin::pin!(self.api.wait_container(id, Some(options)));
            match waiting.next().await {
                Some(Ok(end)) => return format!("exit status {}", end.status_code),
                Some(Err(ApiError::DockerContainerWaitError { code, .. })) => return format!("exit status {code}"),
                Some(Err(ApiError::DockerResponseServerError { status_code: 404, .. })) => {
                    return "the container was removed".into();
                }
                Some(Err(_)) | None => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }

    /// SIGTERM, then SIGKILL after `grace`; removed in either case.
    pub async fn stop(&self, id: &str, grace: Duration) {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        // It may have ended, and with that be gone.
        let _ = self.api.stop_container(id, Some(options)).await;
        self.remove(id).await;
    }

    /// Removes a container, running or not, and returns when it is gone; one
    /// that was gone already is fine.
    pub async fn remove(&self, id: &str) {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        if let Err(ApiError::DockerResponseServerError { status_code: 409, .. }) =
            self.api.remove_container(id, Some(options)).await
        {
            // Somebody else is removing it.
            let options = WaitContainerOptionsBuilder::new().condition("removed").build();
            let mut gone = std::pin::pin!(self.api.wait_container(id, Some(options)));
            let _ = tokio::time::timeout(ANSWER, gone.next()).await;
        }
    }

    /// Every container with this label, and the label's value.
    pub async fn with_label(&self, label: &str) -> Result<Vec<(String, String)>> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.api.list_containers(Some(options)).await.map_err(|e| failed("list containers", &e))?;
        let pairs = found.into_iter().filter_map(|container| {
            let value = container.labels?.get(label)?.clone();
            Some((container.id?, value))
        });
        Ok(pairs.collect())
    }

    /// Runs a program inside a container and waits for it.
    pub async fn exec(&self, id: &str, command: Vec<String>) -> Result<()> {
        use bollard::exec::{CreateExecOptions, StartExecResults};
        let options = CreateExecOptions { cmd: Some(command), attach_stderr: Some(true), ..Default::default() };
        let failed = |e: ApiError| failed("run a program in the container", &e);
        let exec = self.api.create_exec(id, options).await.map_err(failed)?;
        if let StartExecResults::Attached { mut output, .. } =
            self.api.start_exec(&exec.id, None).await.map_err(failed)?
        {
            while output.next().await.is_some() {}
        }
        Ok(())
    }
}

/// Removes a container from where nothing can be awaited: a drop, or the
/// clean-up after an instance that was killed.
pub fn remove_now(id: &str) {
    let id = id.to_owned();
    let work = std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            if let Ok(docker) = Docker::connect().await {
                docker.remove(&id).await;
            }
        });
    });
    // A daemon that is down has taken the container with it or will show it in `doctor`.
    let _ = work.join();
}

async fn open(socket: &Path) -> std::result::Result<Docker, ApiError> {
    let path = socket.display().to_string();
    let api = bollard::Docker::connect_with_unix(&path, API_TIMEOUT_S, API_DEFAULT_VERSION)?;
    let api = api.negotiate_version().await?;
    let info = api.info().await?;
    let version = api.version().await?;
    let podman = version.components.iter().flatten().any(|component| component.name.contains("Podman"));
    let desktop = info.operating_system.is_some_and(|system| system.contains("Docker Desktop"));
    let rootless = info.security_options.iter().flatten().any(|option| option.contains("rootless"));
    // Rootless Docker keeps its containers in a network namespace of its own; Podman does not.
    Ok(Docker { api, in_machine: desktop || !cfg!(target_os = "linux") || (rootless && !podman), podman })
}

/// Sockets to try, in order.
fn sockets() -> Result<Vec<PathBuf>> {
    if let Some(host) = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
        return match host.strip_prefix("unix://") {
            Some(path) => Ok(vec![path.into()]),
            None => Err(Error::DockerMissing {
                looked_in: vec![format!(
                    "DOCKER_HOST is `{host}`: only a daemon of this machine (unix://…) can be used"
                )],
            }),
        };
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let mut sockets = vec![PathBuf::from("/var/run/docker.sock")];
    sockets.extend(
        home.iter().flat_map(|home| [".docker/run/docker.sock", ".colima/default/docker.sock"].map(|at| home.join(at))),
    );
    sockets.extend(runtime.iter().flat_map(|dir| ["docker.sock", "podman/podman.sock"].map(|at| dir.join(at))));
    sockets.push("/run/podman/podman.sock".into());
    Ok(sockets)
}

/// Without a tag the API would pull every tag there is.
fn tagged(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || name.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

fn failed(what: &str, error: &ApiError) -> Error {
    Error::Harness { harness: "docker", reason: format!("cannot {what}: {}", explain(error)), log: Vec::new() }
}

fn explain(error: &ApiError) -> String {
    match error {
        ApiError::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_names_one_tag() {
        assert_eq!(tagged("envoyproxy/envoy"), "envoyproxy/envoy:latest");
        assert_eq!(tagged("localhost:5000/envoy:v1"), "localhost:5000/envoy:v1");
        assert_eq!(tagged("localhost:5000/envoy"), "localhost:5000/envoy:latest");
        assert_eq!(tagged("envoy@sha256:00"), "envoy@sha256:00");
    }
}
