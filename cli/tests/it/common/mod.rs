//! What the tests share: spctl in a home of its own, the real Envoy, load.

pub mod load;
pub mod sink;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// spctl with a private home; what runs in it is taken down at the end.
pub struct Spctl {
    pub home: tempfile::TempDir,
}

/// How a command ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Spctl {
    pub fn new() -> Self {
        Self { home: tempfile::Builder::new().prefix("spctl-test-").tempdir().unwrap() }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spctl"));
        command
            .args(args)
            .current_dir(self.home.path())
            .env("SPCTL_HOME", self.home.path().join("state"))
            .env("NO_COLOR", "1")
            // Nobody's logins.
            .env("REGISTRY_AUTH_FILE", self.home.path().join("no-logins.json"))
            // Tests run side by side: no well-known port.
            .env("SPCTL_LISTEN", "127.0.0.1:0");
        for name in ["SPCTL_ENVOY", "SPCTL_NAME", "SPCTL_HARNESS", "SPCTL_OUTPUT", "SPCTL_UPSTREAM", "SPCTL_BACKEND"] {
            command.env_remove(name);
        }
        if let Ok(envoy) = std::env::var("SPCTL_TEST_ENVOY")
            && !envoy.is_empty()
        {
            command.env("SPCTL_ENVOY", envoy);
        }
        if let Ok(image) = std::env::var("SPCTL_TEST_IMAGE") {
            command.env("SPCTL_IMAGE", image);
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        Ended {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// The `data` of a command that must succeed.
    #[track_caller]
    pub fn data(&self, args: &[&str]) -> Value {
        let ended = self.run(&[args, &["--output", "json", "--quiet"]].concat());
        assert_eq!(ended.code, 0, "{args:?}\n{}{}", ended.stdout, ended.stderr);
        let envelope: Value =
            serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}\n{}", ended.stdout));
        assert_eq!(envelope["schema"], "spctl/v1");
        envelope["data"].clone()
    }

    /// The `error` of a command that must fail.
    #[track_caller]
    pub fn error(&self, args: &[&str]) -> Value {
        let ended = self.run(&[args, &["--output", "json", "--quiet"]].concat());
        let envelope: Value = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|e| panic!("{args:?}: {e}\n{}{}", ended.stdout, ended.stderr));
        let error = envelope["error"].clone();
        assert_eq!(error["exit"], ended.code, "{error}");
        assert_ne!(ended.code, 0, "{}", ended.stdout);
        error
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn instance_dir(&self, name: &str) -> PathBuf {
        self.home.path().join("state/instances").join(name)
    }

    /// The one instance's status.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.data(&["status"])["instances"][0].clone()
    }

    /// Waits until `done` says so of the status; panics with the last one.
    #[track_caller]
    pub fn wait_status(&self, what: &str, mut done: impl FnMut(&Value) -> bool) -> Value {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let status = self.status();
            if done(&status) {
                return status;
            }
            assert!(std::time::Instant::now() < deadline, "{what}: {status:#}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Spctl {
    fn drop(&mut self) {
        let _ = self.command(&["down", "--all", "--quiet"]).output();
    }
}

/// The real Envoy. Missing, it fails in CI; elsewhere the caller says that it
/// skips.
pub fn envoy() -> Option<PathBuf> {
    let path = std::env::var_os("SPCTL_TEST_ENVOY").filter(|p| !p.is_empty()).map(PathBuf::from);
    assert!(path.is_some() || std::env::var_os("CI").is_none(), "CI needs a real Envoy: run .ci/test");
    if path.is_none() {
        eprintln!("SKIPPED: no real Envoy (SPCTL_TEST_ENVOY is not set; .ci/test sets it)");
    }
    path
}

/// An Envoy image that Docker has. Missing, it fails in CI; elsewhere the
/// caller says that it skips.
pub fn image() -> Option<String> {
    let image = std::env::var("SPCTL_TEST_IMAGE").ok().filter(|image| !image.is_empty());
    assert!(image.is_some() || std::env::var_os("CI").is_none(), "CI needs Docker and an Envoy image: run .ci/test");
    if image.is_none() {
        eprintln!("SKIPPED: no Docker with an Envoy image (SPCTL_TEST_IMAGE is not set; .ci/test sets it)");
    }
    image
}

/// A tool that CI must have and a laptop may lack.
pub fn tool(variable: &str, what: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    assert!(path.is_some() || std::env::var_os("CI").is_none(), "CI needs {what} ({variable})");
    if path.is_none() {
        eprintln!("SKIPPED: this needs {what}; {variable} names one");
    }
    path
}

/// Every real Envoy to compare with: the one above, then those that
/// `SPCTL_TEST_ENVOYS` lists as `PATH` lists directories.
pub fn envoys() -> Vec<PathBuf> {
    let more = std::env::var_os("SPCTL_TEST_ENVOYS").unwrap_or_default();
    let mut all: Vec<PathBuf> = envoy().into_iter().collect();
    for path in std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty()) {
        if !all.contains(&path) {
            all.push(path);
        }
    }
    all
}

/// The harnesses to test on here; `SPCTL_TEST_HARNESS` names a single one
/// while one works on it.
pub fn harnesses() -> Vec<&'static str> {
    let mut harnesses = native_harnesses();
    if std::env::var_os("SPCTL_TEST_HARNESS").is_some_and(|only| only != "docker") {
        return harnesses;
    }
    if image().is_some() {
        harnesses.push("docker");
    }
    harnesses
}

/// Those whose proxy is a process of this machine.
pub fn native_harnesses() -> Vec<&'static str> {
    match std::env::var("SPCTL_TEST_HARNESS").as_deref() {
        Ok("embedded") => return vec!["embedded"],
        Ok("envoy") => return vec!["envoy"],
        Ok("docker") => return Vec::new(),
        _ => {}
    }
    if envoy().is_some() { vec!["embedded", "envoy"] } else { vec!["embedded"] }
}

pub fn address(url: &Value) -> std::net::SocketAddr {
    url.as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap()
}

/// A whole answer of `at`.
#[track_caller]
pub fn ask(at: std::net::SocketAddr, method: &str, path: &str) -> spctl::adapters::http::Answer {
    let patience = std::time::Duration::from_secs(10);
    runtime().block_on(spctl::adapters::http::ask(at, method, path, patience)).unwrap()
}

pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").canonicalize().unwrap()
}

/// Sum of the drop counters.
pub fn dropped(counters: &Value) -> u64 {
    counters["dropped"].as_object().map_or(0, |reasons| reasons.values().filter_map(Value::as_u64).sum())
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Threads of this process that serve while the load runs elsewhere.
pub fn in_background<T: Send + 'static>(start: impl std::future::Future<Output = T> + Send + 'static) -> T {
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            tx.send(start.await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    rx.recv().unwrap()
}
