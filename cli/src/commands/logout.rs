//! `logout`: forgets a login.

use serde::Serialize;

use crate::adapters::registry;
use crate::error::Result;
use crate::reference;
use crate::ui::Output;

/// Forget the login to a registry, in the file or helper that Docker and ORAS share.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// HOST or HOST:PORT.
    registry: String,
}

#[derive(Serialize)]
struct LogoutResult {
    registry: String,
    /// There was a login.
    forgotten: bool,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    let registry = reference::registry(&args.registry)?;
    let forgotten = registry::forget(&registry)?.is_some();
    let result = LogoutResult { registry, forgotten };
    output.result(&result, |style| {
        let registry = style.bold(&result.registry);
        if forgotten { format!("logged out of {registry}\n") } else { format!("there was no login to {registry}\n") }
    })
}
