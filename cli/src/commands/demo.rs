//! `demo`: the demo application of `quickstart`, one service at a time.

use super::Context;
use crate::args::NameArg;
use crate::error::Result;
use crate::instance::Client;

/// Stop or start a service of the demo application.
///
/// The shop asks the inventory; without it, it answers 502, unless the
/// inventory's answers come from recordings (`captures serve`).
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: NameArg,
    /// What to do.
    action: Action,
    /// With which service.
    service: Service,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Action {
    Stop,
    Start,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Service {
    Inventory,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let client = Client::find(&context.home, &args.name.name)?;
    let runs = args.action == Action::Start;
    match args.service {
        Service::Inventory => client.post::<()>("/demo/inventory", &runs).await?,
    }
    let result = serde_json::json!({"service": "inventory", "running": runs});
    context.output.result(&result, |_| format!("the inventory is {}\n", if runs { "running" } else { "stopped" }))
}
