//! Softprobe's rule documents: what to answer without any recording. A member
//! that would not be honoured refuses the document: ignoring one would make a
//! rule match too much.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exchange::Exchange;

use super::fingerprint::Fingerprint;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default, alias = "id", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default)]
    pub priority: i64,
    #[serde(default)]
    pub consume: Consume,
    #[serde(default)]
    when: When,
    then: Then,
    /// It matched already, and was to match once.
    #[serde(skip)]
    spent: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consume {
    Once,
    #[default]
    Many,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct When {
    direction: Option<String>,
    service: Option<String>,
    host: Option<String>,
    method: Option<String>,
    path: Option<String>,
    path_prefix: Option<String>,
    not_host_suffix: Vec<String>,
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "action", rename_all = "snake_case")]
enum Then {
    Mock { response: Mock },
    Error { error: Failure },
    Passthrough,
    CaptureOnly,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mock {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    #[serde(default)]
    status: u16,
    #[serde(default)]
    body: Value,
}

/// A response that was made up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// What a matching rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ruling {
    Answer(Made),
    /// To the real upstream, whatever is recorded.
    Pass,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Policy {
    external_http: Option<ExternalHttp>,
    default_on_miss: Option<OnMiss>,
    allow_hosts: Vec<String>,
    external_allowlist: Vec<String>,
    block_hosts: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExternalHttp {
    Strict,
    Allow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnMiss {
    Error,
    Passthrough,
}

impl Rule {
    /// The rules of a document: an array, each with `when` and `then`.
    pub fn parse_all(document: &Value) -> Result<Vec<Self>, String> {
        let list = document.as_array().ok_or("`rules` must be an array")?;
        let parse = |(at, rule): (usize, &Value)| {
            let rule: Self = Self::deserialize(rule).map_err(|e| format!("rules[{at}]: {e}"))?;
            let status = match &rule.then {
                Then::Mock { response } => response.status,
                Then::Error { error } => error.status,
                Then::Passthrough | Then::CaptureOnly => 0,
            };
            if status != 0 && !(200..600).contains(&status) {
                return Err(format!("rules[{at}].then: status {status} cannot be answered"));
            }
            Ok(rule)
        };
        list.iter().enumerate().map(parse).collect()
    }

    fn matches(&self, request: &Exchange, fingerprint: &Fingerprint) -> bool {
        let when = &self.when;
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let alike = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(found))
        };
        !self.spent
            && is(&when.direction, &request.summary.direction)
            && is(&when.service, &request.summary.service)
            && alike(&when.host, &fingerprint.host)
            && alike(&when.method, &request.summary.method)
            && is(&when.path, &fingerprint.path)
            && when.path_prefix.as_deref().is_none_or(|prefix| fingerprint.path.starts_with(prefix))
            && !when.not_host_suffix.iter().any(|suffix| fingerprint.host.ends_with(&suffix.to_ascii_lowercase()))
            && when.headers.iter().all(|(name, value)| request.request.header(name) == Some(value))
    }

    fn ruling(&self) -> Ruling {
        match &self.then {
            Then::Mock { response } => Ruling::Answer(Made {
                status: if response.status == 0 { 200 } else { response.status },
                headers: response.headers.clone().into_iter().collect(),
                body: text(&response.body),
            }),
            Then::Error { error } => Ruling::Answer(Made {
                status: if error.status == 0 { 500 } else { error.status },
                headers: vec![("content-type".into(), "application/json".into())],
                body: match &error.body {
                    Value::String(message) => serde_json::json!({"error": message}).to_string(),
                    other => text(other),
                },
            }),
            Then::Passthrough | Then::CaptureOnly => Ruling::Pass,
        }
    }
}

/// The highest priority wins; then the later layer, then the later rule.
/// `layers` are those of the case and of the session, in this order.
pub(super) fn decide(layers: [&mut Vec<Rule>; 2], request: &Exchange) -> Option<(String, Ruling)> {
    let fingerprint = Fingerprint::of(request);
    let rules = layers.into_iter().flatten().filter(|rule| rule.matches(request, &fingerprint));
    let best = rules.reduce(|best, rule| if rule.priority >= best.priority { rule } else { best })?;
    best.spent = best.consume == Consume::Once;
    Some((format!("rule:{}", best.name.as_deref().unwrap_or("unnamed")), best.ruling()))
}

impl Policy {
    /// What a request gets that neither rule nor recording answers.
    pub(super) fn on_miss(&self, request: &Exchange) -> Option<Made> {
        let host = Fingerprint::of(request).host;
        let listed = |hosts: &[String]| {
            hosts.iter().any(|pattern| match pattern.strip_prefix('*') {
                Some(suffix) => host.ends_with(&suffix.to_ascii_lowercase()),
                None => pattern.eq_ignore_ascii_case(&host),
            })
        };
        let strict = self.external_http == Some(ExternalHttp::Strict) || self.default_on_miss == Some(OnMiss::Error);
        let allowed = listed(&self.allow_hosts) || listed(&self.external_allowlist);
        (listed(&self.block_hosts) || strict && !allowed).then(|| Made {
            status: 500,
            headers: vec![("content-type".into(), "application/json".into())],
            body: r#"{"error":"strict policy requires a mock rule match"}"#.into(),
        })
    }
}

/// A string as it is, anything else as compact JSON.
fn text(body: &Value) -> String {
    match body {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
