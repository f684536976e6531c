//! `captures serve`: requests answered from recordings.

use std::path::PathBuf;

use super::super::Context;
use super::Selection;
use crate::args::NameArg;
use crate::backend::Serving;
use crate::error::{Error, Result};
use crate::instance::{Answered, Client, ServeRequest};

/// Answer requests from recordings, so that a service runs without its dependencies.
///
/// Each request is looked up by method, host, path, query in any order and
/// body; within its session where that was recorded, else in the whole
/// selection. Several recordings of one request are given in their order, the
/// last one for good. A request without a recording goes to the real upstream.
/// Answers carry `x-softprobe-injected` with the id of the exchange or rule
/// they come from, and are not captured.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    name: NameArg,
    #[command(flatten)]
    selection: Selection,
    /// Answer from this case (`*.case.json`) instead of what was captured here.
    #[arg(value_name = "CASE")]
    case: Option<PathBuf>,
    /// Whose requests are answered.
    #[arg(long, value_enum, default_value = "outbound")]
    answer: Answered,
    /// Add what the real upstream answers: asked once, recorded from then on.
    #[arg(long)]
    learn: bool,
    /// Stop answering.
    #[arg(long, conflicts_with_all = ["case", "learn"])]
    off: bool,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let client = Client::find(&context.home, &args.name.name)?;
    if args.off {
        let served: Option<Serving> = client.delete("/captures/serve").await?;
        return context.output.result(&serde_json::json!({ "served": served }), |_| match &served {
            Some(served) => format!("stopped; {} requests were answered from {}\n", served.hits, served.from),
            None => "nothing was served\n".to_owned(),
        });
    }
    let case = args
        .case
        .as_ref()
        .map(|path| std::fs::canonicalize(path).map_err(|source| Error::Unreadable { path: path.clone(), source }));
    let request = ServeRequest {
        case: case.transpose()?,
        filter: args.selection.filter(),
        learn: args.learn,
        answered: args.answer,
    };
    let serving: Serving = {
        let progress = context.output.progress();
        progress.step("reading the recordings");
        client.post("/captures/serve", &request).await?
    };
    if serving.unusable > 0 {
        let count = serving.unusable;
        context.output.warn(format!("{count} exchanges cannot be answered: no whole response of theirs was captured"));
    }
    if serving.exchanges == 0 && !serving.learn {
        context.output.warn("there is nothing to answer from; --learn adds what the upstream answers".to_owned());
    }
    context.output.result(&serving, |_| {
        let learning = if serving.learn { ", and learning" } else { "" };
        let from = &serving.from;
        format!("answering from {} exchanges of {from}{learning}; `captures serve --off` ends it\n", serving.exchanges)
    })
}
