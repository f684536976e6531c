//! `status`: what runs where, and what each proxy really serves.

use serde::Serialize;

use super::Context;
use crate::error::{Error, Result};
use crate::instance::{Client, InstanceStatus, PluginStatus};
use crate::ui::{Align, Style, Table, short_digest};

/// Show what runs: harness, proxies, the plugin digest each one really serves, counters.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this instance; an error if it does not run.
    #[arg(long, env = "SPCTL_NAME")]
    name: Option<String>,
}

#[derive(Serialize)]
struct All {
    instances: Vec<InstanceStatus>,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let names = match &args.name {
        Some(name) => vec![name.clone()],
        None => context.home.names(),
    };
    let mut instances = Vec::new();
    for name in &names {
        let status = match Client::find(&context.home, name) {
            Ok(client) => client.get("/status").await,
            Err(error) => Err(error),
        };
        match status {
            Ok(status) => instances.push(status),
            Err(Error::NotRunning { .. }) if args.name.is_none() => {}
            Err(error) if args.name.is_none() => context.output.warn(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    if instances.is_empty() && names.is_empty() {
        context.output.note("nothing is running; start something with `spctl quickstart` or `spctl run`");
    }
    let all = All { instances };
    context.output.result(&all, |style| {
        all.instances.iter().map(|instance| describe(instance, style)).collect::<Vec<_>>().join("\n")
    })
}

fn describe(instance: &InstanceStatus, style: Style) -> String {
    let state = if instance.state == "running" { style.good(&instance.state) } else { style.bad(&instance.state) };
    let mut text = format!("{} ({}) {state}, process {}\n", style.bold(&instance.name), instance.harness, instance.pid);
    let urls = [
        ("proxy", &instance.proxy_url),
        ("outbound", &instance.outbound_url),
        ("admin", &instance.admin_url),
        ("backend", &instance.backend_url),
    ];
    for (what, url) in urls {
        if let Some(url) = url {
            text.push_str(&format!("  {what:<9} {}\n", style.accent(url)));
        }
    }
    let mut table = Table::new([
        ("  PROXY", Align::Left),
        ("STATE", Align::Left),
        ("PLUGIN", Align::Left),
        ("SERVES", Align::Left),
        ("WANTED", Align::Left),
    ]);
    for proxy in &instance.proxies {
        for plugin in &proxy.plugins {
            let known = instance.plugins.iter().find(|p| p.name == plugin.name);
            let wanted = known.map_or("", |p| &p.plugin_digest);
            let same = wanted == plugin.plugin_digest;
            let serves = short_digest(&plugin.plugin_digest);
            table.row([
                format!("  {}", proxy.name),
                proxy.state.clone(),
                known.map_or_else(|| plugin.name.clone(), PluginStatus::title),
                if same { style.good(serves) } else { style.bad(serves) },
                short_digest(wanted).to_owned(),
            ]);
        }
        if proxy.plugins.is_empty() {
            table.row([format!("  {}", proxy.name), proxy.state.clone(), "-".into(), "-".into(), "-".into()]);
        }
    }
    text.push_str(&table.render(style));
    let counters = &instance.counters;
    text.push_str(&format!(
        "  {} requests, {} captured, {} skipped, {} exported, {} queued, {} dropped, {} truncated, {} stored\n",
        counters.requests,
        counters.captured,
        counters.skipped,
        counters.exported,
        counters.queued,
        counters.dropped_total(),
        counters.truncated,
        counters.stored
    ));
    if let Some(serving) = &instance.serving {
        text.push_str(&format!(
            "  answering from {} exchanges of {}: {} hits, {} misses\n",
            serving.exchanges, serving.from, serving.hits, serving.misses
        ));
    }
    if counters.inject_failures > 0 {
        text.push_str(&format!("    {}\n", style.warn(&format!("{} lookups failed", counters.inject_failures))));
    }
    for (reason, count) in &counters.dropped {
        text.push_str(&format!("    {}\n", style.warn(&format!("{count} dropped: {reason}"))));
    }
    if counters.evicted > 0 {
        text.push_str(&format!(
            "    {}\n",
            style.warn(&format!("{} of the oldest were evicted by the database's bounds", counters.evicted))
        ));
    }
    text
}
