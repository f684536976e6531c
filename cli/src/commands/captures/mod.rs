//! `captures`: what was captured, listed, shown, followed, exported, cleared.

mod export;
mod list;
mod serve;
mod show;

use clap::Subcommand;

use super::Context;
use crate::args::NameArg;
use crate::backend::Filter;
use crate::error::Result;
use crate::instance::Client;

/// Read the captured exchanges of an instance.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List captured exchanges, newest last.
    List(list::Args),
    /// Show one exchange: headers in order, bodies, trailers.
    Show(show::Args),
    /// Print exchanges as they are captured.
    Tail(list::TailArgs),
    /// Write exchanges as HAR, OTLP JSON or curl commands.
    Export(export::Args),
    /// Answer requests from what was captured, or from a case file.
    Serve(serve::Args),
    /// Forget all captured exchanges.
    Clear(ClearArgs),
}

#[derive(Debug, clap::Args)]
struct ClearArgs {
    #[command(flatten)]
    name: NameArg,
}

/// Which exchanges, for the subcommands that take several.
#[derive(Debug, Clone, clap::Args)]
struct Selection {
    /// Only this method.
    #[arg(long)]
    method: Option<String>,
    /// Only this status.
    #[arg(long)]
    status: Option<u16>,
    /// Only `inbound` or `outbound`.
    #[arg(long, value_parser = ["inbound", "outbound"])]
    direction: Option<String>,
    /// Only this session id.
    #[arg(long)]
    session: Option<String>,
    /// Only this trace id.
    #[arg(long)]
    trace: Option<String>,
    /// Only URLs that contain this.
    #[arg(long)]
    url: Option<String>,
}

impl Args {
    pub(crate) fn name(&self) -> &'static str {
        match self.command {
            Command::List(_) => "captures list",
            Command::Show(_) => "captures show",
            Command::Tail(_) => "captures tail",
            Command::Export(_) => "captures export",
            Command::Serve(_) => "captures serve",
            Command::Clear(_) => "captures clear",
        }
    }
}

impl Selection {
    fn filter(&self) -> Filter {
        Filter {
            method: self.method.clone(),
            status: self.status,
            direction: self.direction.clone(),
            session: self.session.clone(),
            trace: self.trace.clone(),
            url: self.url.clone(),
            ..Filter::default()
        }
    }
}

/// The filter as a query string of the control socket.
fn query(filter: &Filter) -> String {
    let Ok(serde_json::Value::Object(members)) = serde_json::to_value(filter) else { return String::new() };
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        query.append_pair(name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    query.finish()
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    match args.command {
        Command::List(args) => list::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Tail(args) => list::tail(args, context).await,
        Command::Export(args) => export::run(args, context).await,
        Command::Serve(args) => serve::run(args, context).await,
        Command::Clear(args) => clear(args, context).await,
    }
}

async fn clear(args: ClearArgs, context: &Context<'_>) -> Result<()> {
    let client = Client::find(&context.home, &args.name.name)?;
    let cleared: u64 = client.delete("/captures").await?;
    context.output.result(&serde_json::json!({"cleared": cleared}), |_| format!("{cleared} exchanges forgotten\n"))
}
