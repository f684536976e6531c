//! `captures export`: exchanges for other tools.

use std::path::PathBuf;

use super::super::Context;
use super::{Selection, query};
use crate::args::NameArg;
use crate::backend::Filter;
use crate::error::{Error, Result};
use crate::export::Format;
use crate::instance::Client;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    name: NameArg,
    #[command(flatten)]
    selection: Selection,
    /// HAR 1.2, OTLP JSON (TracesData), or one curl command an exchange.
    #[arg(long, value_enum)]
    format: Format,
    /// At most so many, the newest; all without it.
    #[arg(long, short = 'n')]
    limit: Option<u32>,
    /// Write to this file (only you can read it) instead of standard output.
    #[arg(long, short = 'f')]
    file: Option<PathBuf>,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let client = Client::find(&context.home, &args.name.name)?;
    let filter = Filter { limit: args.limit, ..args.selection.filter() };
    let format = serde_json::to_value(args.format).map_err(|e| Error::Protocol(e.to_string()))?;
    let text = client
        .raw(&format!("/captures/export?format={}&{}", format.as_str().unwrap_or_default(), query(&filter)))
        .await?;
    match &args.file {
        None => context.output.raw(&text),
        Some(path) => {
            crate::state::write_private(path, text.as_bytes())?;
            let data = serde_json::json!({"path": path, "bytes": text.len()});
            context.output.result(&data, |_| format!("{} ({} bytes)\n", path.display(), text.len()))
        }
    }
}
