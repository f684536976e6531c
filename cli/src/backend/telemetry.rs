//! APIClarity's telemetry, both forms, as spans of ours: what its filter and
//! ours on that wire send. Schema: openclarity/apiclarity
//! `plugins/api/swagger.yaml`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};
use spctl_plugin::attributes::{REQUEST_BODY_TRUNCATED, RESPONSE_BODY_TRUNCATED};

use super::attributes::{attribute, headers as header_attributes};

/// One exchange, in the form since November 2021 or, by its other names, the
/// one before.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Telemetry {
    #[serde(rename = "requestID", alias = "request_id", default)]
    request_id: String,
    #[serde(default)]
    scheme: String,
    #[serde(alias = "destination_address", default)]
    destination_address: String,
    #[serde(alias = "source_address", default)]
    source_address: String,
    #[serde(alias = "scnt_request")]
    request: Request,
    #[serde(alias = "scnt_response")]
    response: Response,
}

#[derive(Debug, Deserialize)]
struct Request {
    method: String,
    path: String,
    #[serde(default)]
    host: String,
    common: Option<Common>,
    /// The older form has no object of its own for it.
    #[serde(flatten)]
    flat: Common,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(alias = "status_code")]
    status_code: String,
    common: Option<Common>,
    #[serde(flatten)]
    flat: Common,
}

#[derive(Debug, Default, Deserialize)]
struct Common {
    #[serde(default)]
    version: String,
    #[serde(default)]
    headers: Option<Vec<Header>>,
    #[serde(default, deserialize_with = "base64")]
    body: Vec<u8>,
    #[serde(default, rename = "TruncatedBody", alias = "truncated_body")]
    truncated: bool,
    /// Milliseconds since the epoch.
    #[serde(default)]
    time: u64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Header {
    Named { key: String, value: String },
    Pair(String, String),
}

/// Reads either form; `now_ns` is when it came, for the form without a time.
pub(super) fn request(body: &[u8], now_ns: u64) -> serde_json::Result<ExportTraceServiceRequest> {
    let telemetry: Telemetry = serde_json::from_slice(body)?;
    Ok(ExportTraceServiceRequest { resource_spans: vec![telemetry.spans(now_ns)] })
}

impl Telemetry {
    fn spans(self, now_ns: u64) -> ResourceSpans {
        let ns = |ms: u64| if ms == 0 { now_ns } else { ms.saturating_mul(1_000_000) };
        let request = self.request.common.unwrap_or(self.request.flat);
        let response = self.response.common.unwrap_or(self.response.flat);
        let (start, end) = (ns(request.time), ns(response.time));
        let mut attributes = Vec::new();
        let mut put = |key: &str, value: Any| attributes.push(attribute(key, value));
        let text = |text: &str| Any::StringValue(text.to_owned());
        let scheme = if self.scheme.is_empty() { "http" } else { &self.scheme };
        put("http.request.method", text(&self.request.method));
        put("url.full", text(&format!("{scheme}://{}{}", self.request.host, self.request.path)));
        if let Ok(status) = self.response.status_code.parse() {
            put("http.response.status_code", Any::IntValue(status));
        }
        if let Some(version) = request.version.strip_prefix("HTTP/") {
            put("network.protocol.version", text(version));
        }
        for (address, name) in [(&self.source_address, "client"), (&self.destination_address, "network.local")] {
            if let Some((host, port)) = address.rsplit_once(':') {
                put(&format!("{name}.address"), text(host));
                put(&format!("{name}.port"), Any::IntValue(port.parse().unwrap_or(0)));
            }
        }
        // One span for one exchange, also when it is sent again.
        let digest = Sha256::digest(format!("{}\n{start}\n{}", self.request_id, self.request.path));
        put_side("request", REQUEST_BODY_TRUNCATED, request, &mut attributes);
        put_side("response", RESPONSE_BODY_TRUNCATED, response, &mut attributes);
        let span = Span {
            trace_id: digest.iter().copied().take(16).collect(),
            span_id: digest.iter().copied().skip(16).take(8).collect(),
            name: self.request.method,
            // opentelemetry.proto.trace.v1.Span.SpanKind: CLIENT; its filter sees outbound requests only.
            kind: 3,
            start_time_unix_nano: start,
            end_time_unix_nano: end.max(start),
            attributes,
            ..Span::default()
        };
        let service = attribute("service.name", Any::StringValue("apiclarity".into()));
        ResourceSpans {
            resource: Some(Resource { attributes: vec![service], ..Resource::default() }),
            scope_spans: vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    }
}

fn put_side(side: &str, truncated: &str, common: Common, attributes: &mut Vec<KeyValue>) {
    let headers: Vec<(String, String)> = common.headers.unwrap_or_default().into_iter().map(Header::pair).collect();
    attributes.extend(header_attributes(&format!("http.{side}.header."), &headers));
    if !common.body.is_empty() {
        let content = match String::from_utf8(common.body) {
            Ok(text) => Any::StringValue(text),
            Err(e) => Any::BytesValue(e.into_bytes()),
        };
        attributes.push(attribute(&format!("http.{side}.body.content"), content));
    }
    if common.truncated {
        attributes.push(attribute(truncated, Any::BoolValue(true)));
    }
}

impl Header {
    fn pair(self) -> (String, String) {
        match self {
            Self::Named { key, value } | Self::Pair(key, value) => (key.to_ascii_lowercase(), value),
        }
    }
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}
