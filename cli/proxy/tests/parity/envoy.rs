//! A real Envoy with the least configuration that a comparison needs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What differs from one comparison to the next, in Envoy's YAML.
#[derive(Default, Clone)]
pub(crate) struct EnvoySettings {
    /// Members of the connection manager, in flow style, each with a comma.
    pub(crate) manager: String,
    /// `route_config`, in flow style.
    pub(crate) routes: String,
    /// `transport_socket` of the listener, in flow style.
    pub(crate) socket: String,
    /// Whole clusters, in flow style.
    pub(crate) clusters: Vec<String>,
}

pub(crate) struct Envoy {
    process: Child,
    pub(crate) address: SocketAddr,
    _config: tempfile::TempDir,
}

/// The binary to compare with, if one is named.
pub(crate) fn binary() -> Option<PathBuf> {
    std::env::var_os("SPCTL_TEST_ENVOY").map(PathBuf::from)
}

impl Envoy {
    pub(crate) fn start(binary: &PathBuf, settings: &EnvoySettings) -> Self {
        let (address, admin) = (free_port(), free_port());
        let config = tempfile::tempdir().unwrap();
        let path = config.path().join("envoy.yaml");
        std::fs::write(&path, yaml(address, admin, settings)).unwrap();
        let mut process = Command::new(binary)
            .arg("-c")
            .arg(&path)
            .args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "error"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while !is_ready(admin) {
            assert!(process.try_wait().unwrap().is_none(), "Envoy ended; {}", std::fs::read_to_string(&path).unwrap());
            assert!(started.elapsed() < Duration::from_secs(20), "Envoy does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, address, _config: config }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(admin) else { return false };
    let _ = stream.write_all(b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.contains("LIVE")
}

fn socket_address(address: SocketAddr) -> String {
    format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
}

/// A cluster of one endpoint; `more` are its other members, each with a comma.
pub(crate) fn cluster(name: &str, address: SocketAddr, protocol: &str, more: &str) -> String {
    let address = socket_address(address);
    format!(
        "{{name: {name}, type: STATIC, {more} typed_extension_protocol_options: \
         {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
         {{\"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
         explicit_http_config: {protocol}}}}}, \
         load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {address}}}}}]}}]}}}}"
    )
}

/// HTTP/1 with trailers.
pub(crate) const HTTP1: &str = "{http_protocol_options: {enable_trailers: true}}";

fn yaml(address: SocketAddr, admin: SocketAddr, settings: &EnvoySettings) -> String {
    let EnvoySettings { manager, routes, socket, clusters } = settings;
    let socket = if socket.is_empty() { String::new() } else { format!("      transport_socket: {socket}\n") };
    let clusters: String = clusters.iter().map(|cluster| format!("  - {cluster}\n")).collect();
    format!(
        "admin: {{address: {}}}\n\
         static_resources:\n\
         \x20 listeners:\n\
         \x20 - name: ingress\n\
         \x20   address: {}\n\
         \x20   filter_chains:\n\
         \x20   - filters:\n\
         \x20     - name: envoy.filters.network.http_connection_manager\n\
         \x20       typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: ingress, {manager} http_protocol_options: {{enable_trailers: true}}, route_config: {routes}, \
         http_filters: [{{name: router, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}\n\
         {socket}\
         \x20 clusters:\n{clusters}",
        socket_address(admin),
        socket_address(address),
    )
}
