//! `config explain`.

use std::path::PathBuf;

use serde::Serialize;
use spctl_plugin::config::Config;
use spctl_plugin::exchange::{Direction, Head};
use spctl_plugin::headers::Headers;
use spctl_plugin::inject;
use spctl_plugin::policy::{Decision, Matched, Reason};

use super::{configurations, named};
use crate::error::{Error, Result};
use crate::ui::{Output, Style};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration, or a file that carries it.
    file: PathBuf,
    /// The request's method.
    method: String,
    /// The request's URL, or its path.
    url: String,
    /// A header of the request; repeatable.
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Which way the exchange crosses the workload [default: as configured, else both].
    #[arg(long, value_parser = ["inbound", "outbound"])]
    direction: Option<String>,
    /// The response's status.
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// The response's content type.
    #[arg(long, default_value = "")]
    content_type: String,
}

#[derive(Serialize)]
struct Explained {
    /// One for each configuration in the file and each direction.
    verdicts: Vec<Verdict>,
}

#[derive(Serialize)]
struct Verdict {
    place: String,
    direction: &'static str,
    captured: bool,
    /// The key that decided.
    key: String,
    why: String,
    /// The backend would be asked for an answer.
    injected: bool,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    let headers = headers(args)?;
    let head = Head::read(&headers);
    let mut explained = Explained { verdicts: Vec::new() };
    for found in configurations(&args.file)? {
        let parsed = spctl_plugin::config::parse(&found.configuration).map_err(|e| Error::ConfigRejected {
            place: named(&args.file, &found),
            key: e.path,
            reason: e.message,
        })?;
        parsed.warnings.iter().for_each(|warning| output.warn(format!("{}: {warning}", named(&args.file, &found))));
        for direction in directions(args, &parsed.config) {
            let (captured, key, why) = judge(args, &parsed.config, &head, direction);
            let injected = captured && inject::asks(&parsed.config.inject, &head, direction);
            let direction = if direction == Direction::Outbound { "outbound" } else { "inbound" };
            explained.verdicts.push(Verdict { place: found.place.clone(), direction, captured, key, why, injected });
        }
    }
    output.result(&explained, |style| explained.verdicts.iter().map(|verdict| describe(verdict, style)).collect())
}

fn directions(args: &Args, config: &Config) -> Vec<Direction> {
    match (args.direction.as_deref(), config.direction) {
        (Some("inbound"), _) => vec![Direction::Inbound],
        (Some(_), _) => vec![Direction::Outbound],
        (None, Some(direction)) => vec![direction],
        (None, None) => vec![Direction::Inbound, Direction::Outbound],
    }
}

/// The filter's own decisions, in its own order: captured, the key that
/// decided, why.
fn judge(args: &Args, config: &Config, head: &Head<'_>, direction: Direction) -> (bool, String, String) {
    let (decision, matched) = config.policy.judge(head, direction);
    let rule = match matched {
        Some(Matched::Exempt(at)) => format!("exemptionRules[{at}]"),
        Some(Matched::Server(at)) => format!("collectionRules.http.server[{at}]"),
        Some(Matched::Client(at)) => format!("collectionRules.http.client[{at}]"),
        None => String::new(),
    };
    let because = |captured: bool, key: &str, why: &str| (captured, key.to_owned(), why.to_owned());
    match decision {
        Decision::Skip(Reason::Exempt) => because(false, &rule, "an exemption matches host and path"),
        Decision::Skip(Reason::NotSelected) => {
            because(false, "collectionRules", "there are rules, and none matches this direction, host and path")
        }
        Decision::Skip(Reason::Static) => because(false, "skip.extensions", "the path ends like a static resource"),
        Decision::Skip(Reason::Prefetch) => {
            because(false, "skip.prefetch", "a web framework prefetches or asks for its page data")
        }
        Decision::Capture if config.policy.is_static(Some(args.status), args.content_type.as_bytes()) => {
            because(false, "skip.content_types", "the response is a static resource by its type")
        }
        Decision::Capture if matched.is_some() => because(true, &rule, "a rule matches host and path"),
        Decision::Capture => because(true, "collectionRules", "there are no rules, and no exemption matches"),
    }
}

fn headers(args: &Args) -> Result<Headers> {
    let (scheme, rest) = match args.url.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None if args.url.starts_with('/') => ("http", args.url.as_str()),
        None => return Err(Error::Usage(format!("`{}` is neither a URL nor a path", args.url))),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut pairs = vec![
        (":authority".to_owned(), authority.to_owned()),
        (":path".to_owned(), path),
        (":method".to_owned(), args.method.to_ascii_uppercase()),
        (":scheme".to_owned(), scheme.to_owned()),
    ];
    for header in &args.header {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| Error::Usage(format!("`{header}` is not a header: write `name: value`")))?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        // As Envoy shows it to filters.
        let name = if name == "host" { ":authority".to_owned() } else { name };
        pairs.retain(|(n, _)| name != ":authority" || *n != name);
        pairs.push((name, value));
    }
    Ok(Headers::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))))
}

fn describe(verdict: &Verdict, style: Style) -> String {
    let place = if verdict.place.is_empty() { String::new() } else { format!("{}: ", verdict.place) };
    let result = if verdict.captured { style.good("captured") } else { style.bad("not captured") };
    let asked = if verdict.injected { "; the backend is asked for an answer" } else { "" };
    format!("{place}{}: {result} by `{}`: {}{asked}\n", verdict.direction, verdict.key, verdict.why)
}
