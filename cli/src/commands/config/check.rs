//! `config check`.

use std::path::PathBuf;

use serde::Serialize;

use super::{configurations, named};
use crate::error::{Error, Result};
use crate::ui::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration, or a file that carries it.
    file: PathBuf,
}

#[derive(Serialize)]
struct Checked {
    configurations: Vec<Configuration>,
}

#[derive(Serialize)]
struct Configuration {
    /// Where in the file; empty: the file itself.
    place: String,
    wire: &'static str,
    backend_cluster: String,
    /// Keys without effect.
    warnings: Vec<String>,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    let mut checked = Checked { configurations: Vec::new() };
    for found in configurations(&args.file)? {
        let place = named(&args.file, &found);
        let parsed = spctl_plugin::config::parse(&found.configuration).map_err(|e| Error::ConfigRejected {
            place: place.clone(),
            key: e.path,
            reason: e.message,
        })?;
        // The filter itself must not fail over a typo; this is the place to.
        if let Some(warning) = parsed.warnings.iter().find(|warning| warning.is_unknown()) {
            let reason = "there is no such key; the filter would ignore it".to_owned();
            return Err(Error::ConfigRejected { place, key: warning.path.clone(), reason });
        }
        let warnings: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
        warnings.iter().for_each(|warning| output.warn(format!("{place}: {warning}")));
        checked.configurations.push(Configuration {
            place: found.place,
            wire: parsed.config.wire.name(),
            backend_cluster: parsed.config.backend.cluster,
            warnings,
        });
    }
    output.result(&checked, |style| {
        let line = |c: &Configuration| {
            let place = if c.place.is_empty() { String::new() } else { format!("{}: ", c.place) };
            format!("{place}{}, wire {}, to cluster {}\n", style.good("ok"), c.wire, c.backend_cluster)
        };
        checked.configurations.iter().map(line).collect()
    })
}
