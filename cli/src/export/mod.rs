//! Captured exchanges in the formats of other tools: pure, spans in, text out.

mod curl;
mod har;

pub use curl::shell_word;

use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, TracesData};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::backend::exchange;
use crate::error::{Error, Result};
use crate::state::hex;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// HTTP Archive 1.2.
    Har,
    /// OTLP JSON, as the filter sent it.
    Otlp,
    /// A shell script of curl commands.
    Curl,
    /// A case, for `captures serve` and Softprobe's runtimes.
    Case,
}

/// The whole selection as one document.
pub fn export(format: Format, spans: &[ResourceSpans]) -> Result<String> {
    match format {
        Format::Otlp => json(&TracesData { resource_spans: spans.to_vec() }),
        Format::Case => json(&case(spans)?),
        Format::Har => json(&har::har(spans)?),
        Format::Curl => spans.iter().map(|span| Ok(curl::command(&exchange(span)?))).collect(),
    }
}

/// One trace document for each exchange, named after what is in it.
fn case(spans: &[ResourceSpans]) -> Result<serde_json::Value> {
    let traces = spans.iter().map(|span| TracesData { resource_spans: vec![span.clone()] });
    let traces = traces.map(serde_json::to_value).collect::<Result<Vec<_>, _>>();
    let traces = traces.map_err(|e| Error::Protocol(e.to_string()))?;
    let digest = Sha256::digest(serde_json::to_vec(&traces).map_err(|e| Error::Protocol(e.to_string()))?);
    let id = hex(digest.get(..6).unwrap_or_default());
    Ok(serde_json::json!({"version": "1.0.0", "caseId": format!("captured-{id}"), "mode": "capture", "traces": traces}))
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::Protocol(e.to_string()))?;
    text.push('\n');
    Ok(text)
}
