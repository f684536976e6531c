//! The command line: global flags and one entry a command.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::adapters::registry::Transport;
use crate::commands::{
    build, captures, completions, config, demo, doctor, down, hidden, inspect, login, logout, logs, pull, push,
    quickstart, reload, run, status,
};
use crate::harness::Kind;
use crate::ui::Format;

/// Build, run, reload and inspect Envoy and Istio Wasm filters, with the
/// Softprobe capture filter inside.
///
/// `spctl quickstart` shows real captured traffic within seconds, without
/// Docker, cluster or account.
#[derive(Debug, Parser)]
#[command(name = "spctl", version, max_term_width = 100, propagate_version = true, after_help = after_help())]
pub struct Cli {
    /// How results are written: text for people, json for machines.
    #[arg(long, short, global = true, value_enum, default_value_t, env = "SPCTL_OUTPUT")]
    pub output: Format,

    /// No progress and no notes on stderr; errors and warnings only.
    #[arg(long, short, global = true)]
    pub quiet: bool,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Quickstart(quickstart::Args),
    Run(Box<run::Args>),
    Build(build::Args),
    Reload(reload::Args),
    Status(status::Args),
    Logs(logs::Args),
    Captures(captures::Args),
    Config(config::Args),
    Push(push::Args),
    Pull(pull::Args),
    Inspect(inspect::Args),
    Login(login::Args),
    Logout(logout::Args),
    Doctor(doctor::Args),
    Demo(demo::Args),
    Down(down::Args),
    Completions(completions::Args),
    #[command(name = "__instance", hide = true)]
    Instance(hidden::Args),
}

impl Command {
    /// The word users typed, as it stands in the JSON envelope.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Quickstart(_) => "quickstart",
            Self::Run(_) => "run",
            Self::Build(_) => "build",
            Self::Reload(_) => "reload",
            Self::Status(_) => "status",
            Self::Logs(_) => "logs",
            Self::Captures(args) => args.name(),
            Self::Config(args) => args.name(),
            Self::Push(_) => "push",
            Self::Pull(_) => "pull",
            Self::Inspect(_) => "inspect",
            Self::Login(_) => "login",
            Self::Logout(_) => "logout",
            Self::Doctor(_) => "doctor",
            Self::Demo(_) => "demo",
            Self::Down(_) => "down",
            Self::Completions(_) => "completions",
            Self::Instance(_) => "__instance",
        }
    }
}

/// Which instance a command is about.
#[derive(Debug, Clone, clap::Args)]
pub struct NameArg {
    /// The instance's name.
    #[arg(long, default_value = "default", env = "SPCTL_NAME", value_parser = instance_name)]
    pub name: String,
}

/// Where to run: shared by `run` and `quickstart`.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// The kind of place to run in.
    #[arg(long, value_enum, env = "SPCTL_HARNESS")]
    pub harness: Option<Kind>,

    /// The Envoy binary of `--harness envoy` [default: `envoy` on PATH].
    #[arg(long, value_name = "FILE", env = "SPCTL_ENVOY")]
    pub envoy_path: Option<PathBuf>,

    /// The Envoy image of `--harness docker`.
    #[arg(long, value_name = "IMAGE", env = "SPCTL_IMAGE")]
    pub image: Option<String>,

    /// Where the proxy listens [default: 127.0.0.1:10000 if free, else any free port; with -c what the file says].
    #[arg(long, value_name = "ADDRESS", env = "SPCTL_LISTEN")]
    pub listen: Option<SocketAddr>,

    /// Worker threads of the proxy [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
}

/// The way to registries: shared by all commands that take a reference.
#[derive(Debug, Clone, clap::Args)]
pub struct RegistryArgs {
    /// Certificates (PEM) of a private CA to trust beside the system's; Docker's and Podman's certs.d are read too.
    #[arg(long, value_name = "FILE", env = "SPCTL_REGISTRY_CA")]
    pub registry_ca: Option<PathBuf>,

    /// Speak HTTP without TLS to the registry; on loopback that is found out.
    #[arg(long, env = "SPCTL_REGISTRY_PLAIN_HTTP", value_parser = clap::builder::FalseyValueParser::new())]
    pub registry_plain_http: bool,
}

impl RegistryArgs {
    pub fn transport(&self) -> Transport {
        Transport { plain_http: self.registry_plain_http, ca_file: self.registry_ca.clone() }
    }
}

fn instance_name(text: &str) -> Result<String, String> {
    if crate::state::is_valid_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 40 letters, digits, `-` or `_`".to_owned())
    }
}

fn after_help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (code, meaning) in crate::error::exit::TABLE {
        text.push_str(&format!("  {code:>3}  {meaning}\n"));
    }
    text
}
