//! The reference registry as a process of the test's own, on loopback.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use sha2::{Digest, Sha256};
use spctl::adapters::http::{Answer, send};

use crate::common::{runtime, tool};

/// docker-registry; ends with the test.
pub struct Server {
    pub address: SocketAddr,
    binary: PathBuf,
    dir: tempfile::TempDir,
    child: Option<Child>,
    /// What its configuration names.
    pub kept: Option<tempfile::TempDir>,
}

impl Server {
    /// Without authentication and TLS. None: it is not here, and that was said.
    pub fn start() -> Option<Self> {
        Self::start_with("", "")
    }

    /// With more of its configuration: below `http`, and beside it.
    pub fn start_with(http: &str, more: &str) -> Option<Self> {
        let binary = tool("SPCTL_TEST_REGISTRY", "docker-registry")?;
        let dir = tempfile::Builder::new().prefix("spctl-registry-").tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let storage = dir.path().join("storage");
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: {address}\n{http}\n{more}\n",
            storage.display()
        );
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let mut server = Self { address, binary, dir, child: None, kept: None };
        server.run();
        Some(server)
    }

    /// Starts it (again), with what it has stored.
    pub fn run(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new(&self.binary)
            .args(["serve"])
            .arg(self.dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let started = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(started.elapsed() < Duration::from_secs(20), "{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Without a farewell.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// `ADDRESS/PATH`.
    pub fn image(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }

    pub fn ask(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Answer {
        let path = path.strip_prefix(&format!("http://{}", self.address)).unwrap_or(path);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("content-type", kind)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        runtime().block_on(send(self.address, request, Duration::from_secs(20))).unwrap()
    }

    /// A blob by hand, as no client of ours would send it.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), "text/plain", Vec::new());
        assert_eq!(begun.status, StatusCode::ACCEPTED);
        let place = begun.headers["location"].to_str().unwrap();
        let place = format!("{place}&digest={digest}");
        let put = self.ask("PUT", &place, "application/octet-stream", bytes.to_vec());
        assert_eq!(put.status, StatusCode::CREATED, "{:?}", put.body);
        digest
    }

    /// A manifest by hand; its digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, manifest: &serde_json::Value) -> String {
        let kind = manifest["mediaType"].as_str().unwrap();
        let bytes = manifest.to_string().into_bytes();
        let digest = digest(&bytes);
        let put = self.ask("PUT", &format!("/v2/{repository}/manifests/{tag}"), kind, bytes);
        assert_eq!(put.status, StatusCode::CREATED, "{:?}", put.body);
        digest
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", spctl::state::hex(&Sha256::digest(bytes)))
}
