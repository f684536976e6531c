//! spctl: build, run, reload and inspect Envoy and Istio Wasm filters, with
//! the Softprobe capture filter inside.
//!
//! `main` → `commands` → `doctor` → `instance` → `harness`, `backend`, `demo`,
//! `logs`, `export`, `oci`, `inspection` → `bootstrap`, `adapters` and the crates `spctl-proxy` and `spctl-host`; no
//! arrow goes back up. A test walks the sources and holds it.

pub mod adapters;
pub mod args;
pub mod backend;
pub mod bootstrap;
pub mod builder;
pub mod bundle;
pub mod commands;
pub mod demo;
pub mod doctor;
pub mod error;
pub mod exchange;
pub mod export;
pub mod filter_config;
pub mod harness;
pub mod inspection;
pub mod instance;
pub mod logs;
pub mod oci;
pub mod reference;
pub mod settings;
pub mod state;
pub mod template;
pub mod toolchain;
pub mod trace;
pub mod ui;

use std::ffi::OsString;

use clap::Parser;

use args::Cli;
use error::{Error, exit};
use ui::{Format, Output};

/// Runs one command line; returns the process's exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &arguments),
    };
    let output = Output::new(cli.output, cli.quiet, cli.command.name());
    match commands::run(cli, &output) {
        Ok(()) => exit::SUCCESS,
        Err(Error::ClosedPipe) => exit::SUCCESS,
        Err(error) => {
            output.error(&error);
            error.exit()
        }
    }
}

/// Help and version are results; anything else the parser says is an error,
/// in the envelope when JSON was asked for.
fn usage(error: &clap::Error, arguments: &[OsString]) -> u8 {
    if !error.use_stderr() {
        // A closed pipe after `--help | head` is no failure.
        let _ = error.print();
        return exit::SUCCESS;
    }
    let json = arguments
        .windows(2)
        .any(|pair| matches!(pair, [flag, value] if (flag == "--output" || flag == "-o") && value == "json"))
        || arguments.iter().any(|argument| argument == "--output=json");
    if json {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Output::new(Format::Json, true, "spctl").error(&Error::Usage(message));
    } else {
        let _ = error.print();
    }
    exit::USAGE
}
