//! Case files (`*.case.json`): recorded traces as OTLP JSON, and rules.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde_json::Value;

use super::library::Library;
use super::rules::Rule;
use crate::backend::decode::stored_spans;
use crate::state::hex;

/// A case that was read.
#[derive(Debug, Default)]
pub struct Case {
    pub id: String,
    pub traces: usize,
    pub rules: Vec<Rule>,
    pub library: Library,
}

/// Reads a case document.
///
/// # Errors
/// What is wrong with it, with the member's path.
pub fn parse(mut document: Value) -> Result<Case, String> {
    let version = document.get("version").and_then(Value::as_str).unwrap_or_default();
    if version != "1.0.0" {
        return Err(format!("version: `{version}` is not 1.0.0"));
    }
    let id = document.get("caseId").and_then(Value::as_str).ok_or("caseId: missing")?.to_owned();
    let rules = match document.get("rules") {
        None | Some(Value::Null) => Vec::new(),
        Some(rules) => Rule::parse_all(rules)?,
    };
    let Some(Value::Array(traces)) = document.get_mut("traces").map(Value::take) else {
        return Err("traces: must be an array of OTLP documents".into());
    };
    let mut case = Case { id, traces: traces.len(), rules, library: Library::default() };
    for (at, mut trace) in traces.into_iter().enumerate() {
        let bad = |why: String| format!("traces[{at}]: {why}");
        mend_ids(&mut trace);
        let request: ExportTraceServiceRequest = serde_json::from_value(trace).map_err(|e| bad(e.to_string()))?;
        for span in stored_spans(request).map_err(bad)? {
            case.library.add_held(span).map_err(|e| bad(e.to_string()))?;
        }
    }
    Ok(case)
}

/// Reads a case file.
///
/// # Errors
/// Unreadable, not JSON, not a case.
pub fn read(path: &Path) -> crate::error::Result<Case> {
    // Softprobe recommends at most 100 documents of 1 MiB.
    let bytes = crate::state::read_small(path, 256 << 20)?;
    let place = || format!("`{}`", path.display());
    let document = serde_json::from_slice(&bytes)
        .map_err(|e| crate::error::Error::ConfigUnparsable { place: place(), reason: e.to_string() })?;
    parse(document).map_err(|reason| crate::error::Error::ConfigUnparsable { place: place(), reason })
}

/// OTLP JSON writes ids in hexadecimal; some writers use protobuf's base64.
fn mend_ids(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let size = match name.as_str() {
                    "traceId" => 16,
                    "spanId" | "parentSpanId" => 8,
                    _ => {
                        mend_ids(member);
                        continue;
                    }
                };
                let Some(text) = member.as_str() else { continue };
                let is_hex = text.len() == size * 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
                if let (false, Ok(bytes)) = (is_hex, STANDARD.decode(text))
                    && bytes.len() == size
                {
                    *member = hex(&bytes).into();
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mend_ids),
        _ => {}
    }
}
