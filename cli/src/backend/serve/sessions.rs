//! Sessions of Softprobe's control API: rules, a case and a policy for the
//! requests that carry a session's id.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::case::{self, Case};
use super::rules::{Policy, Rule};

/// Sessions that are kept; beyond it the oldest goes.
const MAX_SESSIONS: usize = 10_000;

#[derive(Debug, Default)]
pub struct Sessions {
    open: BTreeMap<String, Session>,
    opened: u64,
}

#[derive(Debug)]
pub(super) struct Session {
    mode: Mode,
    revision: u64,
    number: u64,
    fixtures: Value,
    policy_document: Value,
    rules_document: Value,
    pub(super) policy: Policy,
    pub(super) rules: Vec<Rule>,
    pub(super) case: Option<Case>,
    pub(super) stats: Stats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Capture,
    Replay,
    Generate,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    pub(super) injected_spans: u64,
    pub(super) extracted_spans: u64,
    pub(super) strict_misses: u64,
}

/// Why a request of the control API is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    Unknown,
    Invalid(String),
}

type Answer = Result<Value, Refused>;

impl Sessions {
    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Session> {
        self.open.get_mut(id)
    }

    pub fn open(&mut self, request: &Value) -> Answer {
        let mode = request.get("mode").cloned().unwrap_or(Value::Null);
        let mode = Mode::deserialize(&mode).map_err(|_| invalid("mode: must be capture, replay or generate"))?;
        let id = new_id();
        self.opened += 1;
        let mut session = Session {
            mode,
            revision: 0,
            number: self.opened,
            fixtures: Value::Null,
            policy_document: Value::Null,
            rules_document: json!([]),
            policy: Policy::default(),
            rules: Vec::new(),
            case: None,
            stats: Stats::default(),
        };
        if let Some(policy) = request.get("policy") {
            session.set_policy(policy)?;
        }
        if self.open.len() >= MAX_SESSIONS {
            let oldest = self.open.iter().min_by_key(|(_, session)| session.number).map(|(id, _)| id.clone());
            oldest.map(|id| self.open.remove(&id));
        }
        self.open.insert(id.clone(), session);
        Ok(json!({"sessionId": id, "sessionRevision": 0}))
    }

    pub fn list(&self) -> Value {
        let sessions = self
            .open
            .iter()
            .map(|(id, session)| json!({"sessionId": id, "mode": session.mode, "sessionRevision": session.revision}));
        json!({"sessions": sessions.collect::<Vec<_>>()})
    }

    /// What is asked of one session.
    pub fn change(&mut self, id: &str, what: &str, request: Value) -> Answer {
        let session = self.open.get_mut(id).ok_or(Refused::Unknown)?;
        match what {
            "load-case" => session.case = Some(case::parse(request).map_err(Refused::Invalid)?),
            "policy" => session.set_policy(&request)?,
            "rules" => {
                let rules = request.get("rules").ok_or_else(|| invalid("rules: missing"))?;
                session.rules = Rule::parse_all(rules).map_err(Refused::Invalid)?;
                session.rules_document = rules.clone();
            }
            "fixtures/auth" => session.fixtures = request,
            "close" => {
                self.open.remove(id);
                return Ok(json!({"sessionId": id, "closed": true}));
            }
            _ => return Err(Refused::Unknown),
        }
        session.revision += 1;
        Ok(json!({"sessionId": id, "sessionRevision": session.revision}))
    }

    pub fn stats(&self, id: &str) -> Answer {
        let session = self.open.get(id).ok_or(Refused::Unknown)?;
        Ok(session.report(id))
    }

    pub fn state(&self, id: &str) -> Answer {
        let session = self.open.get(id).ok_or(Refused::Unknown)?;
        let mut state = session.report(id);
        if let Value::Object(members) = &mut state {
            members.insert("policy".into(), session.policy_document.clone());
            members.insert("rules".into(), session.rules_document.clone());
            let case = session.case.as_ref().map(|case| json!({"caseId": case.id, "traceCount": case.traces}));
            members.insert("caseSummary".into(), case.unwrap_or(Value::Null));
        }
        Ok(state)
    }

    /// Counts an exchange that was captured in a session.
    pub fn extracted(&mut self, id: &str) {
        if let Some(session) = self.open.get_mut(id) {
            session.stats.extracted_spans += 1;
        }
    }
}

impl Session {
    fn set_policy(&mut self, document: &Value) -> Result<(), Refused> {
        self.policy = Policy::deserialize(document).map_err(|e| Refused::Invalid(format!("policy: {e}")))?;
        self.policy_document = document.clone();
        Ok(())
    }

    fn report(&self, id: &str) -> Value {
        json!({"sessionId": id, "sessionRevision": self.revision, "mode": self.mode, "stats": self.stats})
    }
}

fn invalid(why: &str) -> Refused {
    Refused::Invalid(why.to_owned())
}

/// `sess_` and twelve random bytes, which the standard library seeds its hashes
/// with.
fn new_id() -> String {
    let random = || RandomState::new().build_hasher().finish().to_le_bytes();
    let bytes: Vec<u8> = [random(), random()].concat().into_iter().take(12).collect();
    format!("sess_{}", URL_SAFE_NO_PAD.encode(bytes))
}
