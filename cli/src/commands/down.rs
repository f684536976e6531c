//! `down`: drains an instance, stops it and removes what it left.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Context;
use crate::args::NameArg;
use crate::error::{Error, Result};
use crate::instance::{Client, Counters};
use crate::state::Found;

/// Longer than an instance drains.
const GONE: Duration = Duration::from_secs(30);

/// Stop an instance and remove everything it left, captures included.
///
/// Requests in flight end and the capture filter sends what it still holds
/// before anything stops; the final counters are the result.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: NameArg,

    /// Stop all instances.
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

#[derive(Serialize)]
struct Stopped {
    instances: Vec<StoppedInstance>,
}

#[derive(Serialize)]
struct StoppedInstance {
    name: String,
    counters: Counters,
}

impl StoppedInstance {
    fn line(&self) -> String {
        let Counters { requests, captured, stored, .. } = self.counters;
        let dropped = self.counters.dropped_total();
        format!(
            "stopped `{}`: {requests} requests, {captured} captured, {stored} stored, {dropped} dropped\n",
            self.name
        )
    }
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let names = if args.all { context.home.names() } else { vec![args.name.name] };
    let mut instances = Vec::new();
    for name in names {
        match stop(&name, context).await {
            Ok(counters) => instances.push(StoppedInstance { name, counters }),
            Err(error @ Error::Died { .. }) if args.all => context.output.warn(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    let stopped = Stopped { instances };
    context.output.result(&stopped, |_| stopped.instances.iter().map(StoppedInstance::line).collect())
}

async fn stop(name: &str, context: &Context<'_>) -> Result<Counters> {
    let client = Client::find(&context.home, name)?;
    let progress = context.output.progress();
    progress.step(&format!("stopping `{name}`: requests in flight end, captures are sent"));
    let counters: Counters = client.post("/stop", &()).await?;
    let dir = context.home.instance(name);
    let deadline = Instant::now() + GONE;
    while !matches!(dir.find()?, Found::Nothing) {
        if Instant::now() > deadline {
            return Err(Error::Instance { reason: format!("`{name}` has stopped but its process has not ended") });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(counters)
}
