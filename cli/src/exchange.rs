//! A captured exchange as spctl shows it; its serialisation is the JSON
//! contract of `captures list` and `captures show`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What a list says of an exchange.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The span id, 16 hex digits.
    pub id: String,
    /// Start, RFC 3339 with nanoseconds, UTC.
    pub time: String,
    /// `inbound`, `outbound` or `auto`.
    pub direction: String,
    pub method: String,
    pub url: String,
    /// 0 when the stream ended without a response.
    pub status: u16,
    pub duration_ms: f64,
    pub service: String,
    pub trace_id: String,
    pub span_id: String,
    pub parent_span_id: Option<String>,
    pub session_id: Option<String>,
    /// Bytes of the bodies as they passed, captured or not.
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// A body is longer than what was kept of it.
    pub truncated: bool,
    /// The stream ended before the response did.
    pub aborted: bool,
    /// Where secrets were taken out, such as `request.header.authorization`.
    pub redacted: Vec<String>,
}

/// One exchange, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    #[serde(flatten)]
    pub summary: Summary,
    pub protocol: Option<String>,
    pub source: Option<String>,
    pub destination: Option<String>,
    pub upstream: Option<String>,
    pub request: Message,
    pub response: Message,
}

/// One side of an exchange.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// In the order of the wire; repeated names stay apart.
    pub headers: Vec<(String, String)>,
    pub body: Option<Body>,
    pub trailers: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Body {
    pub encoding: Encoding,
    pub data: String,
    /// Bytes that passed, before any cut.
    pub size: u64,
    pub truncated: bool,
    /// The content coding that was undone to read the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoded_from: Option<String>,
    /// Why there is no data although there was a body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omitted: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    Utf8,
    Base64,
}

impl Message {
    /// The first value of a header, by lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

impl Body {
    /// Text if it is UTF-8, else base64.
    pub fn new(data: Vec<u8>, size: u64, truncated: bool) -> Self {
        let (encoding, data) = match String::from_utf8(data) {
            Ok(text) => (Encoding::Utf8, text),
            Err(e) => (Encoding::Base64, STANDARD.encode(e.as_bytes())),
        };
        Self { encoding, data, size, truncated, decoded_from: None, omitted: None }
    }

    /// The captured bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self.encoding {
            Encoding::Utf8 => self.data.clone().into_bytes(),
            Encoding::Base64 => STANDARD.decode(&self.data).unwrap_or_default(),
        }
    }
}
