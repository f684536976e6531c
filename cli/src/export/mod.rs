//! Captured exchanges in the formats of other tools: pure, spans in, text out.

mod curl;
mod har;

use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, TracesData};
use serde::{Deserialize, Serialize};

use crate::backend::exchange;
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// HTTP Archive 1.2.
    Har,
    /// OTLP JSON, as the filter sent it.
    Otlp,
    /// A shell script of curl commands.
    Curl,
}

/// The whole selection as one document.
pub fn export(format: Format, spans: &[ResourceSpans]) -> Result<String> {
    match format {
        Format::Otlp => json(&TracesData { resource_spans: spans.to_vec() }),
        Format::Har => json(&har::har(spans)?),
        Format::Curl => spans.iter().map(|span| Ok(curl::command(&exchange(span)?))).collect(),
    }
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::Protocol(e.to_string()))?;
    text.push('\n');
    Ok(text)
}
