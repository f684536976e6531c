//! `__instance`: the process that holds an instance in the background. Not
//! for people: `run --detach` and `quickstart` start it.

use super::Context;
use crate::args::NameArg;
use crate::error::{Error, Result};
use crate::instance::{Spec, answer_parent, hold};
use crate::state::read_small;

/// A spec is a few kilobytes.
const SPEC_MAX: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: NameArg,
}

pub(super) fn run(args: &Args, context: &Context<'_>) -> Result<()> {
    // A session of its own: the terminal's signals do not reach it. Fails only
    // for a process-group leader, which then has what it needs.
    let _ = rustix::process::setsid();
    let outcome = super::block_on(held(args, context));
    if let Err(error) = &outcome {
        answer_parent(Err(error));
    }
    outcome
}

async fn held(args: &Args, context: &Context<'_>) -> Result<()> {
    let path = context.home.instance(&args.name.name).file("spec.json");
    let spec: Spec =
        serde_json::from_slice(&read_small(&path, SPEC_MAX)?).map_err(|e| Error::Protocol(e.to_string()))?;
    hold(&context.home, spec, None, |_, started| {
        answer_parent(Ok(&started));
        Ok(())
    })
    .await
    .map(|_| ())
}
