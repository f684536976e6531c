//! `config`: the capture filter's configuration, checked and explained before
//! it goes anywhere.

mod check;
mod explain;

use clap::Subcommand;

use crate::error::{Error, Result};
use crate::filter_config::{self, Found};
use crate::state::read_small;
use crate::ui::Output;

/// Files beyond this hold no configuration.
const FILE_MAX: u64 = 16 << 20;

/// Check and explain a configuration of the capture filter.
///
/// FILE is the filter's JSON or YAML, or a file that carries it: a WasmPlugin
/// or EnvoyFilter of Istio, an Envoy bootstrap.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a configuration: bad values and unknown keys fail.
    Check(check::Args),
    /// Say whether and why an exchange would be captured.
    Explain(explain::Args),
    /// Print the JSON schema, for editors.
    Schema,
}

impl Args {
    pub(crate) fn name(&self) -> &'static str {
        match self.command {
            Command::Check(_) => "config check",
            Command::Explain(_) => "config explain",
            Command::Schema => "config schema",
        }
    }
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    match args.command {
        Command::Check(args) => check::run(&args, output),
        Command::Explain(args) => explain::run(&args, output),
        Command::Schema => {
            let schema = filter_config::schema();
            output.result(&schema, |_| {
                let mut text = format!("{schema:#}");
                text.push('\n');
                text
            })
        }
    }
}

/// The configurations in a file; at least one.
fn configurations(path: &std::path::Path) -> Result<Vec<Found>> {
    let place = || format!("`{}`", path.display());
    let text = String::from_utf8(read_small(path, FILE_MAX)?)
        .map_err(|e| Error::ConfigUnparsable { place: place(), reason: e.to_string() })?;
    let found = filter_config::find(&text).map_err(|reason| Error::ConfigUnparsable { place: place(), reason })?;
    if found.is_empty() {
        return Err(Error::Usage(format!("{} holds no configuration of the capture filter", place())));
    }
    Ok(found)
}

/// How errors name a configuration.
fn named(path: &std::path::Path, found: &Found) -> String {
    match found.place.as_str() {
        "" => format!("`{}`", path.display()),
        place => format!("`{}` at `{place}`", path.display()),
    }
}
