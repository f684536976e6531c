//! Statistics as Envoy prints them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use regex_lite::Regex;
use serde_json::{Value, json};
use spctl_host::{Histogram, Stat, StatValue};

use super::AdminState;
use super::http::{Ask, Reply};

pub(super) fn reply(state: &AdminState, ask: &Ask, wanted: Option<&Regex>) -> Reply {
    let stats = wanted_stats(state, wanted, ask.has("usedonly"));
    match ask.value("format") {
        Some("json") => Reply::json(json(&stats)),
        Some("prometheus") => Reply::text(200, expose(&stats, summarised(ask))),
        None | Some("text") => Reply::text(200, text(&stats)),
        Some(_) => Reply::text(400, "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"),
    }
}

pub(super) fn prometheus(state: &AdminState, ask: &Ask, wanted: Option<&Regex>) -> Reply {
    Reply::text(200, expose(&wanted_stats(state, wanted, ask.has("usedonly")), summarised(ask)))
}

/// Quantiles are wanted instead of buckets.
fn summarised(ask: &Ask) -> bool {
    ask.value("histogram_buckets") == Some("summary")
}

fn wanted_stats(state: &AdminState, wanted: Option<&Regex>, used_only: bool) -> Vec<Stat> {
    let is_used = |stat: &Stat| match &stat.value {
        StatValue::Counter(value) | StatValue::Gauge(value) => *value > 0,
        StatValue::Histogram(histogram) => histogram.count > 0,
    };
    let mut stats = state.blueprint.process.stats().snapshot();
    let gauge = |name: &str, value: u64| Stat { name: name.to_owned(), value: StatValue::Gauge(value) };
    stats.push(gauge("server.live", u64::from(state.acceptors.is_open())));
    stats.push(gauge("server.uptime", state.started.elapsed().as_secs()));
    stats.push(gauge("server.concurrency", state.workers as u64));
    stats.sort_by(|a, b| a.name.cmp(&b.name));
    stats.retain(|stat| wanted.is_none_or(|wanted| wanted.is_match(&stat.name)) && (!used_only || is_used(stat)));
    stats
}

fn text(stats: &[Stat]) -> String {
    let mut out = String::new();
    for stat in stats {
        if let StatValue::Counter(value) | StatValue::Gauge(value) = &stat.value {
            let _ = writeln!(out, "{}: {value}", stat.name);
        }
    }
    for stat in stats {
        if let StatValue::Histogram(histogram) = &stat.value {
            let _ = writeln!(out, "{}: {}", stat.name, quantiles(histogram));
        }
    }
    out
}

fn quantiles(histogram: &Histogram) -> String {
    if histogram.count == 0 {
        return "No recorded values".to_owned();
    }
    let one = |(percent, value): &(f64, f64)| format!("P{percent}(nan,{value})");
    histogram.quantiles.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn json(stats: &[Stat]) -> String {
    let mut all: Vec<Value> = Vec::new();
    let mut computed: Vec<Value> = Vec::new();
    let mut supported: Vec<f64> = Vec::new();
    for stat in stats {
        match &stat.value {
            StatValue::Counter(value) | StatValue::Gauge(value) => all.push(json!({"name": stat.name, "value": value})),
            StatValue::Histogram(histogram) => {
                supported = histogram.quantiles.iter().map(|(percent, _)| *percent).collect();
                let values =
                    histogram.quantiles.iter().map(|(_, value)| json!({"cumulative": value, "interval": null}));
                computed.push(json!({"name": stat.name, "values": values.collect::<Vec<_>>()}));
            }
        }
    }
    if !computed.is_empty() {
        all.push(json!({"histograms": {"supported_quantiles": supported, "computed_quantiles": computed}}));
    }
    json!({"stats": all}).to_string()
}

/// By kind and metric, so that each is introduced once.
fn expose(stats: &[Stat], summarised: bool) -> String {
    let mut metrics: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    for stat in stats {
        let (name, labels) = tagged(&stat.name);
        let Some(name) = name else { continue };
        let (kind, lines) = match &stat.value {
            StatValue::Counter(value) => ("counter", vec![format!("{name}{{{labels}}} {value}")]),
            StatValue::Gauge(value) => ("gauge", vec![format!("{name}{{{labels}}} {value}")]),
            StatValue::Histogram(histogram) if summarised => ("summary", exposed(&name, &labels, histogram, true)),
            StatValue::Histogram(histogram) => ("histogram", exposed(&name, &labels, histogram, false)),
        };
        metrics.entry((kind, name)).or_default().extend(lines);
    }
    let mut out = String::new();
    for ((kind, name), lines) in metrics {
        let _ = writeln!(out, "# TYPE {name} {kind}\n{}", lines.join("\n"));
    }
    out
}

fn exposed(name: &str, labels: &str, histogram: &Histogram, summarised: bool) -> Vec<String> {
    let comma = if labels.is_empty() { "" } else { "," };
    let bucket = |bound: &str, count: u64| format!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
    let mut lines: Vec<String> = if summarised {
        let quantile = |(percent, value): &(f64, f64)| {
            format!("{name}{{{labels}{comma}quantile=\"{}\"}} {}", percent / 100.0, digits(*value))
        };
        histogram.quantiles.iter().map(quantile).collect()
    } else {
        let bounded = histogram.buckets.iter().map(|(bound, count)| bucket(&bound.to_string(), *count));
        bounded.chain([bucket("+Inf", histogram.count)]).collect()
    };
    lines.push(format!("{name}_sum{{{labels}}} {}", digits(histogram.sum)));
    lines.push(format!("{name}_count{{{labels}}} {}", histogram.count));
    lines
}

/// C's `%.32g`, of a number that is not negative and not tiny.
fn digits(value: f64) -> String {
    let whole = value.log10().floor().max(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 308")]
    let text = format!("{value:.*}", 31usize.saturating_sub(whole as usize));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A metric's name and labels: Envoy's tags taken out of its own names, those of
/// plugins as they are. None: no name for Prometheus.
fn tagged(name: &str) -> (Option<String>, String) {
    if let Some(own) = name.strip_prefix("wasmcustom.") {
        let plain = sanitized(own);
        let is_name = !plain.starts_with(|first: char| first.is_ascii_digit());
        return (is_name.then_some(plain), String::new());
    }
    let mut labels = Vec::new();
    let mut rest = name.to_owned();
    if let Some((before, class)) = name.strip_suffix("xx").and_then(|name| name.rsplit_once("_rq_"))
        && class.len() == 1
    {
        labels.push(format!("envoy_response_code_class=\"{class}\""));
        rest = format!("{before}_rq_xx");
    }
    for (prefix, label) in [("cluster.", "envoy_cluster_name"), ("http.", "envoy_http_conn_manager_prefix")] {
        if let Some((value, suffix)) = rest.strip_prefix(prefix).and_then(|rest| rest.rsplit_once('.')) {
            labels.push(format!("{label}=\"{value}\""));
            rest = format!("{prefix}{suffix}");
            break;
        }
    }
    (Some(format!("envoy_{}", sanitized(&rest))), labels.join(","))
}

fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_envoy_prints() {
        assert_eq!(digits(0.0), "0");
        assert_eq!(digits(12.75), "12.75");
        assert_eq!(digits(5075.0), "5075");
        assert_eq!(digits(20_704.599_162_022_83), "20704.599162022830569185316562653");
    }

    #[test]
    fn names_are_taken_apart_as_envoy_does() {
        let (name, labels) = tagged("http.ingress.downstream_rq_2xx");
        assert_eq!(name.as_deref(), Some("envoy_http_downstream_rq_xx"));
        assert_eq!(labels, "envoy_response_code_class=\"2\",envoy_http_conn_manager_prefix=\"ingress\"");
        assert_eq!(tagged("cluster.a.b.upstream_cx_total").1, "envoy_cluster_name=\"a.b\"");
        assert_eq!(tagged("wasmcustom.my.metric").0.as_deref(), Some("my_metric"));
        assert_eq!(tagged("wasmcustom.1st").0, None);
        assert_eq!(
            tagged("wasm.envoy.wasm.runtime.v8.active").0.as_deref(),
            Some("envoy_wasm_envoy_wasm_runtime_v8_active")
        );
    }
}
