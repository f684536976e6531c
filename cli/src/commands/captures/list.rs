//! `captures list` and `captures tail`.

use super::super::Context;
use super::{Selection, query};
use crate::args::NameArg;
use crate::backend::{Filter, Page};
use crate::error::Result;
use crate::exchange::Summary;
use crate::instance::Client;
use crate::ui::exchange_table;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    name: NameArg,
    #[command(flatten)]
    selection: Selection,
    /// At most so many, the newest.
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Go on where an earlier page ended (its `next`).
    #[arg(long)]
    before: Option<i64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct TailArgs {
    #[command(flatten)]
    name: NameArg,
    #[command(flatten)]
    selection: Selection,
    /// Begin with everything that was captured so far.
    #[arg(long)]
    from_start: bool,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let client = Client::find(&context.home, &args.name.name)?;
    let filter = Filter { limit: Some(args.limit), before: args.before, ..args.selection.filter() };
    let mut page: Page = client.get(&format!("/captures?{}", query(&filter))).await?;
    // Newest last, where a terminal's eye is; exports of several workers
    // arrive out of order.
    page.exchanges.sort_by(|a, b| a.time.cmp(&b.time));
    context.output.result(&page, |style| {
        let mut text = exchange_table(&page.exchanges, style);
        if page.exchanges.is_empty() {
            text = "nothing captured yet\n".to_owned();
        } else if let Some(next) = page.next {
            text.push_str(&style.dim(&format!("older ones: spctl captures list --before {next}\n")));
        }
        text
    })
}

pub(super) async fn tail(args: TailArgs, context: &Context<'_>) -> Result<()> {
    let client = Client::find(&context.home, &args.name.name)?;
    let filter = Filter { after: args.from_start.then_some(0), ..args.selection.filter() };
    let follow = async {
        let mut lines = client.lines(&format!("/captures/follow?{}", query(&filter))).await?;
        while let Some(summary) = lines.next::<Summary>().await? {
            context.output.element(&summary, |style| {
                let table = exchange_table(std::slice::from_ref(&summary), style);
                table.lines().nth(1).map(|line| format!("{line}\n")).unwrap_or_default()
            })?;
        }
        context.output.note("the instance has stopped");
        Ok(())
    };
    tokio::select! {
        result = follow => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}
