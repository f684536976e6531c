//! `captures show`: one exchange, whole.

use super::super::Context;
use crate::args::NameArg;
use crate::error::Result;
use crate::exchange::{Body, Encoding, Exchange, Message};
use crate::instance::Client;
use crate::ui::Style;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    name: NameArg,
    /// The exchange's id, or enough of its first digits.
    id: String,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let client = Client::find(&context.home, &args.name.name)?;
    let id: String = args.id.chars().filter(char::is_ascii_alphanumeric).collect();
    let exchange: Exchange = client.get(&format!("/captures/{id}")).await?;
    context.output.result(&exchange, |style| describe(&exchange, style))
}

fn describe(exchange: &Exchange, style: Style) -> String {
    let summary = &exchange.summary;
    let mut text = format!("{} {} {}\n", style.bold(&summary.method), summary.url, style.status(summary.status));
    let mut fact = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            text.push_str(&format!("  {:<10} {value}\n", style.dim(name)));
        }
    };
    fact("time", Some(&format!("{}, {:.2} ms", summary.time, summary.duration_ms)));
    fact("direction", Some(&summary.direction));
    fact("service", Some(&summary.service));
    fact("protocol", exchange.protocol.as_deref());
    fact("trace", Some(&summary.trace_id));
    fact("span", Some(&summary.span_id));
    fact("parent", summary.parent_span_id.as_deref());
    fact("session", summary.session_id.as_deref());
    fact("from", exchange.source.as_deref());
    fact("to", exchange.destination.as_deref());
    fact("upstream", exchange.upstream.as_deref());
    fact("redacted", Some(&summary.redacted.join(", ")));
    if summary.aborted {
        fact("aborted", Some("the stream ended before the response did"));
    }
    side(&mut text, "request", &exchange.request, style);
    side(&mut text, "response", &exchange.response, style);
    text
}

fn side(text: &mut String, name: &str, message: &Message, style: Style) {
    text.push_str(&format!("\n{}\n", style.bold(name)));
    for (name, value) in &message.headers {
        text.push_str(&format!("  {}: {value}\n", style.accent(name)));
    }
    if let Some(body) = &message.body {
        text.push('\n');
        content(text, body, style);
    }
    if !message.trailers.is_empty() {
        text.push_str(&format!("\n  {}\n", style.dim("trailers")));
        for (name, value) in &message.trailers {
            text.push_str(&format!("  {}: {value}\n", style.accent(name)));
        }
    }
}

fn content(text: &mut String, body: &Body, style: Style) {
    if let Some(why) = &body.omitted {
        text.push_str(&format!("  {}\n", style.dim(&format!("{} bytes left out: {why}", body.size))));
        return;
    }
    match body.encoding {
        Encoding::Utf8 => {
            for line in body.data.lines() {
                text.push_str(&format!("  {line}\n"));
            }
        }
        Encoding::Base64 => text
            .push_str(&format!("  {}\n", style.dim(&format!("{} binary bytes (base64 in --output json)", body.size)))),
    }
    if let Some(coding) = &body.decoded_from {
        text.push_str(&format!("  {}\n", style.dim(&format!("decoded from {coding}"))));
    }
    if body.truncated {
        text.push_str(&format!("  {}\n", style.warn(&format!("cut; {} bytes passed", body.size))));
    }
}
