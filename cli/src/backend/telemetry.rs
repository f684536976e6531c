//! APIClarity's telemetry, both forms, as spans of ours: what its filter and
//! ours on that wire send. Schema: openclarity/apiclarity
//! `plugins/api/swagger.yaml`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};
use spctl_plugin::attributes::{REQUEST_BODY_TRUNCATED, RESPONSE_BODY_TRUNCATED};

/// One exchange, in the form since November 2021.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Telemetry {
    #[serde(rename = "requestID", default)]
    request_id: String,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    destination_address: String,
    #[serde(default)]
    source_address: String,
    request: Request,
    response: Response,
}

#[derive(Debug, Deserialize)]
struct Request {
    method: String,
    path: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    common: Common,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    status_code: String,
    #[serde(default)]
    common: Common,
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

/// The form before.
#[derive(Debug, Deserialize)]
struct TelemetryV1 {
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    destination_address: String,
    #[serde(default)]
    source_address: String,
    scnt_request: RequestV1,
    scnt_response: ResponseV1,
}

#[derive(Debug, Deserialize)]
struct RequestV1 {
    method: String,
    path: String,
    #[serde(default)]
    host: String,
    #[serde(flatten)]
    common: Common,
}

#[derive(Debug, Deserialize)]
struct ResponseV1 {
    status_code: String,
    #[serde(flatten)]
    common: Common,
}

/// Reads either form; `now_ns` is when it came, for the form without a time.
pub(super) fn request(body: &[u8], now_ns: u64) -> serde_json::Result<ExportTraceServiceRequest> {
    let value: serde_json::Value = serde_json::from_slice(body)?;
    let telemetry = if value.get("scnt_request").is_some() {
        TelemetryV1::deserialize(value)?.into()
    } else {
        Telemetry::deserialize(value)?
    };
    Ok(ExportTraceServiceRequest { resource_spans: vec![telemetry.spans(now_ns)] })
}

impl From<TelemetryV1> for Telemetry {
    fn from(old: TelemetryV1) -> Self {
        let RequestV1 { method, path, host, common } = old.scnt_request;
        let response = Response { status_code: old.scnt_response.status_code, common: old.scnt_response.common };
        Self {
            request_id: old.request_id,
            scheme: old.scheme,
            destination_address: old.destination_address,
            source_address: old.source_address,
            request: Request { method, path, host, common },
            response,
        }
    }
}

impl Telemetry {
    fn spans(self, now_ns: u64) -> ResourceSpans {
        let ns = |ms: u64| if ms == 0 { now_ns } else { ms.saturating_mul(1_000_000) };
        let (start, end) = (ns(self.request.common.time), ns(self.response.common.time));
        let mut attributes = Vec::new();
        let mut put = |key: &str, value: Any| attributes.push(attribute(key, value));
        let text = |text: &str| Any::StringValue(text.to_owned());
        let scheme = if self.scheme.is_empty() { "http" } else { &self.scheme };
        put("http.request.method", text(&self.request.method));
        put("url.full", text(&format!("{scheme}://{}{}", self.request.host, self.request.path)));
        if let Ok(status) = self.response.status_code.parse() {
            put("http.response.status_code", Any::IntValue(status));
        }
        if let Some(version) = self.request.common.version.strip_prefix("HTTP/") {
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
        put_side("request", REQUEST_BODY_TRUNCATED, self.request.common, &mut attributes);
        put_side("response", RESPONSE_BODY_TRUNCATED, self.response.common, &mut attributes);
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
    for (at, (name, _)) in headers.iter().enumerate() {
        if headers.iter().take(at).any(|(earlier, _)| earlier == name) {
            continue;
        }
        let values = headers.iter().filter(|(n, _)| n == name);
        let values = values.map(|(_, value)| AnyValue { value: Some(Any::StringValue(value.clone())) }).collect();
        attributes.push(attribute(&format!("http.{side}.header.{name}"), Any::ArrayValue(ArrayValue { values })));
    }
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

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
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
