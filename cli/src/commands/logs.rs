//! `logs`: the lines of plugins and proxies, as they come.

use jiff::Timestamp;

use super::Context;
use crate::args::NameArg;
use crate::error::Result;
use crate::instance::{Client, LogEntry};
use crate::logs::{Level, Line};
use crate::ui::Style;

/// Show the log lines of the plugins of an instance.
///
/// Lines of plugins and errors of the proxy; stdout carries nothing else. With
/// `--follow` and `--level`, the proxy's `wasm` logger is set to that level
/// while this command follows and put back afterwards, however it ends.
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

    /// Only lines from then on: a time, or how long ago (`90s`, `10m`, `2h`).
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,

    /// All the proxy's own lines too.
    #[arg(long)]
    all: bool,

    /// Only lines of this plugin.
    #[arg(long)]
    plugin: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let client = Client::find(&context.home, &args.name.name)?;
    tokio::select! {
        result = follow(&args, &client, context) => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn follow(args: &Args, client: &Client, context: &Context<'_>) -> Result<()> {
    let level = args.level.map(|level| format!("&level={}", level.name())).unwrap_or_default();
    let mut lines = client.lines(&format!("/logs?follow={}{level}", args.follow)).await?;
    while let Some(entry) = lines.next::<LogEntry>().await? {
        match entry {
            LogEntry::Line(line) if wanted(args, &line) => {
                context.output.element(&line, |style| print(&line, style))?;
            }
            LogEntry::Line(_) => {}
            LogEntry::Lost { lost } => context.output.warn(format!("{lost} lines were lost: this reader was too slow")),
        }
    }
    if args.follow {
        context.output.note("the instance has stopped");
    }
    Ok(())
}

/// A time, or a time ago.
fn since(text: &str) -> std::result::Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let ago: jiff::SignedDuration =
        text.parse().map_err(|_| "give a time as 2026-01-31T10:00:00Z, or `10m`".to_owned())?;
    Timestamp::now().checked_sub(ago).map_err(|e| e.to_string())
}

fn wanted(args: &Args, line: &Line) -> bool {
    (args.all || line.plugin.is_some() || line.level >= Level::Error)
        && args.since.is_none_or(|since| line.time.parse::<Timestamp>().is_ok_and(|time| time >= since))
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
