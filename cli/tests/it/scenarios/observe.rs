//! Everything observable of a scenario, and what is normalised before two
//! harnesses are compared.

use std::collections::BTreeMap;

use serde::Serialize;

use super::format::LogOrder;

/// What a client saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answered {
    /// 0: no response.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub trailers: Vec<(String, String)>,
    /// The body ended as its framing says.
    pub complete: bool,
}

/// What a server was asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub trailers: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// A plugin was not taken, when the proxy started or when it was replaced.
    pub refused: bool,
    pub answers: Vec<Answered>,
    pub upstream: Vec<Seen>,
    /// By cluster.
    pub callouts: BTreeMap<String, Vec<Seen>>,
    pub logs: Vec<String>,
    pub metrics: BTreeMap<String, u64>,
    /// Those of the proxy that the scenario asks for.
    pub stats: BTreeMap<String, u64>,
}

/// What is normalised, printed with every result. Each is a value that no two
/// runs share, whatever the harness.
pub const NORMALISED: &[&str] = &[
    "dates: `date` and other times of day",
    "ids: `x-request-id`, connection ids",
    "ports: those of 127.0.0.1 addresses",
    "durations: `x-envoy-upstream-service-time`",
    "traps: the engine's own wording after the function's name",
    "order: callouts, and requests, that were under way at once",
];

impl Observed {
    pub fn normalise(&mut self, order: LogOrder, together: bool) {
        let sides =
            self.answers.iter_mut().map(|a| &mut a.headers).chain(self.upstream.iter_mut().map(|s| &mut s.headers));
        for headers in sides.chain(self.callouts.values_mut().flatten().map(|s| &mut s.headers)) {
            for (name, value) in headers {
                *value = header(name, value);
            }
        }
        for line in &mut self.logs {
            *line = log_line(line);
        }
        // Of exact bytes a second head is left in the body.
        for body in self.answers.iter_mut().map(|a| &mut a.body).filter(|body| body.starts_with("HTTP/1.1 ")) {
            *body = body.split("\r\n").map(log_line).collect::<Vec<_>>().join("\r\n");
        }
        self.callouts.values_mut().for_each(|seen| seen.sort());
        if together {
            self.upstream.sort();
        }
        if order == LogOrder::Unique {
            self.logs.sort();
            self.logs.dedup();
        }
    }
}

fn header(name: &str, value: &str) -> String {
    match name {
        "date" => "<date>".to_owned(),
        "x-request-id" => "<id>".to_owned(),
        "x-envoy-upstream-service-time" => "<ms>".to_owned(),
        _ => ports(value),
    }
}

fn log_line(line: &str) -> String {
    if let Some(rest) = line.split_once("Function: ").map(|(_, rest)| rest) {
        let function = rest.split(' ').next().unwrap_or_default();
        return format!("trap in {function}");
    }
    // A plugin may print a header: its name stays, its value is normalised.
    for name in ["x-request-id", "date", "x-envoy-upstream-service-time"] {
        if let Some((before, value)) = line.split_once(&format!("{name}: ")) {
            return format!("{before}{name}: {}", header(name, value));
        }
    }
    ports(line)
}

/// `127.0.0.1:1234` → `127.0.0.1:<port>`.
fn ports(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("127.0.0.1:") {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        out.push_str(before);
        out.push_str("127.0.0.1:<port>");
        rest = &after[digits..];
    }
    out + rest
}
