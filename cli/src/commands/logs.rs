//! `logs`: the lines of plugins and proxies, as they come.

use super::Context;
use crate::args::NameArg;
use crate::error::Result;
use crate::instance::Client;
use crate::logs::{Level, Line};
use crate::ui::Style;

/// Show the log lines of the plugins of an instance.
///
/// Stdout carries log lines only. With `--level`, the proxy's `wasm` logger is
/// set to that level while this command follows, and put back afterwards.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: NameArg,

    /// Go on as new lines come.
    #[arg(long, short)]
    follow: bool,

    /// Only lines of this level and above; with --follow the proxy logs at it.
    #[arg(long, value_enum)]
    level: Option<Level>,

    /// The proxy's own lines too, not only those of plugins.
    #[arg(long)]
    all: bool,

    /// Only lines of this plugin.
    #[arg(long)]
    plugin: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let client = Client::find(&context.home, &args.name.name)?;
    let before = match (args.follow, args.level) {
        (true, Some(level)) => Some(set_level(&client, level).await?),
        _ => None,
    };
    let result = tokio::select! {
        result = follow(&args, &client, context) => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if let Some(before) = before {
        // The instance may have ended meanwhile: then there is nothing to put back.
        let _ = set_level(&client, before).await;
    }
    result
}

async fn set_level(client: &Client, level: Level) -> Result<Level> {
    client.post("/log-level", &serde_json::json!({"level": level})).await
}

async fn follow(args: &Args, client: &Client, context: &Context<'_>) -> Result<()> {
    let mut lines = client.lines(&format!("/logs?follow={}", args.follow)).await?;
    while let Some(line) = lines.next::<Line>().await? {
        if wanted(args, &line) {
            context.output.element(&line, |style| print(&line, style))?;
        }
    }
    if args.follow {
        context.output.note("the instance has stopped");
    }
    Ok(())
}

fn wanted(args: &Args, line: &Line) -> bool {
    (args.all || line.plugin.is_some())
        && args.level.is_none_or(|level| line.level >= level)
        && args.plugin.as_ref().is_none_or(|plugin| line.plugin.as_ref() == Some(plugin))
}

fn print(line: &Line, style: Style) -> String {
    let time = line.time.get(11..23).unwrap_or(&line.time);
    let level = format!("{:<8}", line.level.name());
    let level = match line.level {
        Level::Warning => style.warn(&level),
        Level::Error | Level::Critical => style.bad(&level),
        Level::Trace | Level::Debug => style.dim(&level),
        Level::Info | Level::Off => level,
    };
    let source = line.plugin.as_ref().map_or_else(|| line.source.clone(), |plugin| format!("{}/{plugin}", line.source));
    format!("{} {level} {} {}\n", style.dim(time), style.accent(&source), line.message)
}
