//! The table of captured exchanges: outbound legs under the inbound one that
//! made them, and where secrets were taken out.

use super::{Align, Style, Table};
use crate::exchange::Summary;

/// Exchanges in the order given, except that a leg whose parent is among them
/// stands under it.
pub fn exchange_table(exchanges: &[Summary], style: Style) -> String {
    let head = [
        ("ID", Align::Left),
        ("TIME", Align::Left),
        ("", Align::Left),
        ("METHOD", Align::Left),
        ("STATUS", Align::Right),
        ("MS", Align::Right),
        ("BYTES", Align::Right),
        ("URL", Align::Left),
        ("", Align::Left),
    ];
    let mut table = Table::new(head);
    for (depth, exchange) in nested(exchanges) {
        table.row(row(exchange, depth, style));
    }
    table.render(style)
}

fn nested(exchanges: &[Summary]) -> Vec<(usize, &Summary)> {
    let parent_of = |exchange: &Summary| {
        exchanges.iter().find(|other| {
            other.trace_id == exchange.trace_id && Some(&other.span_id) == exchange.parent_span_id.as_ref()
        })
    };
    let mut rows = Vec::new();
    for exchange in exchanges.iter().filter(|e| parent_of(e).is_none()) {
        place(exchange, 0, exchanges, &mut rows);
    }
    rows
}

fn place<'a>(exchange: &'a Summary, depth: usize, all: &'a [Summary], rows: &mut Vec<(usize, &'a Summary)>) {
    rows.push((depth, exchange));
    // A trace of our own proxies is a few legs deep; more is a forged loop.
    if depth < 8 {
        for child in all
            .iter()
            .filter(|e| e.trace_id == exchange.trace_id && e.parent_span_id.as_ref() == Some(&exchange.span_id))
        {
            place(child, depth + 1, all, rows);
        }
    }
}

fn row(exchange: &Summary, depth: usize, style: Style) -> Vec<String> {
    let leg = if depth == 0 { String::new() } else { format!("{}└ ", "  ".repeat(depth - 1)) };
    let arrow = if exchange.direction == "outbound" { "→" } else { "←" };
    let mut marks = Vec::new();
    if !exchange.redacted.is_empty() {
        marks.push(style.warn(&format!("redacted: {}", marked(&exchange.redacted))));
    }
    if exchange.truncated {
        marks.push(style.dim("body cut"));
    }
    if exchange.aborted {
        marks.push(style.bad("aborted"));
    }
    vec![
        style.dim(exchange.id.get(..8).unwrap_or(&exchange.id)),
        style.dim(exchange.time.get(11..23).unwrap_or(&exchange.time)),
        style.accent(arrow),
        style.bold(&exchange.method),
        style.status(exchange.status),
        format!("{:.1}", exchange.duration_ms),
        size(exchange.request_bytes + exchange.response_bytes),
        format!("{leg}{}", shortened(&exchange.url, 60)),
        marks.join(" "),
    ]
}

/// The last part of each mark is what people look for: `authorization`.
fn marked(redacted: &[String]) -> String {
    let mut names: Vec<&str> = redacted.iter().map(|mark| mark.rsplit(['.', ':']).next().unwrap_or(mark)).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" ")
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => bytes.to_string(),
        10_000..=9_999_999 => format!("{}k", bytes / 1000),
        _ => format!("{}M", bytes / 1_000_000),
    }
}

fn shortened(url: &str, most: usize) -> String {
    let url = url.split_once("://").map_or(url, |(_, rest)| rest);
    if url.chars().count() <= most { url.to_owned() } else { url.chars().take(most - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(span: &str, parent: Option<&str>) -> Summary {
        Summary {
            id: span.into(),
            time: "2026-01-01T10:00:00.000Z".into(),
            direction: "inbound".into(),
            method: "GET".into(),
            url: "http://a/b".into(),
            status: 200,
            duration_ms: 1.0,
            service: "s".into(),
            trace_id: "t".into(),
            span_id: span.into(),
            parent_span_id: parent.map(str::to_owned),
            session_id: None,
            request_bytes: 0,
            response_bytes: 0,
            truncated: false,
            aborted: false,
            redacted: Vec::new(),
        }
    }

    #[test]
    fn legs_stand_under_their_caller() {
        let all = [summary("child", Some("root")), summary("other", None), summary("root", Some("unknown"))];
        let order: Vec<_> = nested(&all).iter().map(|(depth, e)| (*depth, e.span_id.as_str())).collect();
        assert_eq!(order, [(0, "other"), (0, "root"), (1, "child")]);
    }

    #[test]
    fn a_long_page_nests_in_reasonable_time() {
        let all: Vec<_> = (0..3000).map(|n| summary(&n.to_string(), None)).collect();
        assert_eq!(nested(&all).len(), 3000);
    }
}
