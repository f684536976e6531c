//! `quickstart`: from nothing to captured traffic in one command.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Context, fetch};
use crate::args::{NameArg, Place};
use crate::backend::Page;
use crate::demo::traffic;
use crate::error::{Error, Result};
use crate::exchange::Summary;
use crate::harness::{DEFAULT_IMAGE, Kind, Limits};
use crate::instance::{
    BackendSpec, Client, InstanceStatus, PluginSpec, Spec, Upstream, default_workers, start_detached,
};
use crate::logs::Level;
use crate::state::Found;
use crate::ui::{Style, exchange_table};

/// Generous: an export takes milliseconds.
const ARRIVAL: Duration = Duration::from_secs(20);

/// Bring up a harness with a demo application, send traffic, show what was captured.
///
/// The instance stays in the background; `spctl down` removes it. Run again,
/// it finds the instance and shows its captures.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: NameArg,

    #[command(flatten)]
    place: Place,
}

#[derive(Serialize)]
struct Shown {
    instances: Vec<InstanceStatus>,
    /// Captured exchanges.
    exchanges: u64,
    took_ms: u64,
    /// It ran before this command.
    found: bool,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let started = Instant::now();
    let name = args.name.name.clone();
    let harness = args.place.harness.unwrap_or(Kind::Embedded);
    if let Found::Alive(record) = context.home.instance(&name).find()? {
        if args.place.harness.is_some_and(|wanted| wanted.name() != record.harness) {
            return Err(Error::AlreadyRunning { name, harness: record.harness });
        }
        return show_found(&name, started, context).await;
    }
    let progress = context.output.progress();
    progress.step(&format!("starting the {} harness, the demo application and the backend", harness.name()));
    let spec = spec(name.clone(), harness, args.place);
    fetch(&spec, &progress).await?;
    let begun = start_detached(&context.home, &spec).await?;
    let sent = demonstrate(&begun.status, &progress).await;
    let client = Client::find(&context.home, &name)?;
    sent?;
    progress.step("waiting for every exchange to arrive at the backend");
    let status = arrived(&client, traffic::exchanges()).await?;
    drop(progress);
    let page = captures(&client).await?;
    let shown =
        Shown { exchanges: status.counters.stored, took_ms: millis(started), instances: vec![status], found: false };
    context.output.result(&shown, |style| screen(&shown, &page.exchanges, style))
}

/// The capture filter in both directions of the demo shop.
fn spec(name: String, harness: Kind, place: Place) -> Spec {
    Spec {
        name,
        service: "shop".into(),
        harness,
        envoy_path: place.envoy_path,
        image: place.image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
        listen: place.listen,
        upstream: Upstream::Demo,
        outbound: Some(Upstream::Demo),
        clusters: Vec::new(),
        plugins: vec![PluginSpec::capture(None, None)],
        bootstrap: None,
        backend: BackendSpec::local(None),
        workers: place.workers.map_or_else(default_workers, usize::from),
        log_level: Level::Info,
        limits: Limits::default(),
    }
}

async fn show_found(name: &str, started: Instant, context: &Context<'_>) -> Result<()> {
    let client = Client::find(&context.home, name)?;
    let status: InstanceStatus = client.get("/status").await?;
    let page = captures(&client).await?;
    let shown =
        Shown { exchanges: status.counters.stored, took_ms: millis(started), instances: vec![status], found: true };
    context.output.result(&shown, |style| screen(&shown, &page.exchanges, style))
}

async fn demonstrate(status: &InstanceStatus, progress: &crate::ui::Progress) -> Result<()> {
    let proxy = status.proxy_url.as_deref().and_then(|url| url.strip_prefix("http://")).and_then(|a| a.parse().ok());
    let proxy = proxy.ok_or_else(|| Error::Demo("the proxy has no address".into()))?;
    let count = traffic::requests().len();
    progress.step(&format!("sending {count} requests to the demo shop at {proxy}"));
    traffic::send_all(proxy, "demo-session", |n, request| {
        progress.detail(&format!("request {} of {count}: {}", n + 1, request.shows));
    })
    .await
}

/// Counts are compared, nothing is slept for: the demo knows what it sent.
async fn arrived(client: &Client, expected: u64) -> Result<InstanceStatus> {
    let deadline = Instant::now() + ARRIVAL;
    loop {
        let status: InstanceStatus = client.get("/status").await?;
        let counters = &status.counters;
        // An early hit of an old counter is impossible: the store only grows.
        if counters.stored >= expected && counters.is_settled() && counters.captured >= expected {
            return Ok(status);
        }
        if Instant::now() > deadline {
            return Err(Error::Incomplete { stored: counters.stored, expected, seconds: ARRIVAL.as_secs() });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn captures(client: &Client) -> Result<Page> {
    let mut page: Page = client.get("/captures?limit=60").await?;
    page.exchanges.sort_by(|a, b| a.time.cmp(&b.time));
    Ok(page)
}

fn screen(shown: &Shown, exchanges: &[Summary], style: Style) -> String {
    let Some(status) = shown.instances.first() else { return String::new() };
    let proxy = status.proxy_url.as_deref().unwrap_or_default();
    let head = if shown.found {
        format!("{} is already running on the {} harness; its captures:\n\n", style.bold(&status.name), status.harness)
    } else {
        let seconds = shown.took_ms as f64 / 1000.0;
        format!(
            "{} {} exchanges captured by a Wasm filter on the {} harness in {seconds:.1} s\n\n",
            style.good("✓"),
            style.bold(&shown.exchanges.to_string()),
            status.harness
        )
    };
    let body_of = exchanges.iter().find(|e| !e.redacted.is_empty()).or(exchanges.first());
    let id = body_of.and_then(|e| e.id.get(..8)).unwrap_or("ID");
    let mut text = head + &exchange_table(exchanges, style);
    text.push_str(&format!(
        "\n  {} in   {} out   the proxy is {}, the instance stays in the background\n\n",
        style.accent("←"),
        style.accent("→"),
        style.accent(proxy)
    ));
    let next = [
        (format!("spctl captures show {id}"), "one exchange: headers, bodies, what was redacted"),
        (format!("curl {proxy}/products && spctl captures list -n 2"), "capture a request of your own"),
        ("spctl down".to_owned(), "stop it and remove everything"),
    ];
    text.push_str("Try next:\n");
    for (command, what) in next {
        text.push_str(&format!("  {}\n      {}\n", style.bold(&command), style.dim(what)));
    }
    text
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
