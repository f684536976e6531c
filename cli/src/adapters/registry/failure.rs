//! From what libraries say to situations that users meet.

use std::error::Error as StdError;
use std::io;

use oras::errors::OciErrorCode;
use tokio_rustls::rustls;

use crate::error::{Error, RegistryProblem};
use crate::reference::Reference;

/// One attempt that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) problem: RegistryProblem,
    pub(super) causes: Vec<String>,
    /// The same may work in a moment.
    pub(super) passing: bool,
    /// So many seconds from now, as the registry said.
    pub(super) after: Option<u64>,
}

/// An error about an image, with its cause.
pub fn failed(reference: &Reference, problem: RegistryProblem, cause: impl Into<String>) -> Error {
    Failure::new(problem, cause).into_error(reference)
}

impl Failure {
    pub(super) fn new(problem: RegistryProblem, cause: impl Into<String>) -> Self {
        Self { problem, causes: vec![cause.into()], passing: false, after: None }
    }

    pub(super) fn passing(mut self) -> Self {
        self.passing = true;
        self
    }

    pub(super) fn after(mut self, seconds: Option<u64>) -> Self {
        self.after = seconds;
        self
    }

    pub(super) fn into_error(self, reference: &Reference) -> Error {
        Error::Registry { reference: reference.to_string(), problem: self.problem, causes: self.causes }
    }

    /// By an answer's status, and by the codes that the distribution
    /// specification gives errors.
    pub(super) fn of_status(status: u16, body: &[u8]) -> Self {
        let envelope: Option<oras::errors::OciEnvelope> = serde_json::from_slice(body).ok();
        let code = envelope.as_ref().and_then(|envelope| envelope.errors.first()).map(|error| &error.code);
        let problem = match (status, code) {
            (429, _) | (_, Some(OciErrorCode::Toomanyrequests)) => RegistryProblem::RateLimit,
            (401, _) | (_, Some(OciErrorCode::Unauthorized)) => RegistryProblem::Unauthorized,
            (403, _) | (_, Some(OciErrorCode::Denied)) => RegistryProblem::Denied,
            (413, _) => RegistryProblem::Limit,
            (400, Some(OciErrorCode::DigestInvalid | OciErrorCode::SizeInvalid)) => RegistryProblem::Truncated,
            (404, Some(OciErrorCode::BlobUploadUnknown)) => RegistryProblem::Truncated,
            (404, _) => RegistryProblem::NotFound,
            (500.., _) => RegistryProblem::Failed,
            (_, Some(_)) => RegistryProblem::Rejected,
            _ => RegistryProblem::Protocol,
        };
        let passing = matches!(status, 408 | 429 | 500 | 502 | 503 | 504) || problem == RegistryProblem::Truncated;
        let text = match envelope {
            Some(envelope) => envelope.errors.iter().take(3).map(said).collect::<Vec<_>>().join("; "),
            None => quoted(&String::from_utf8_lossy(body)),
        };
        let cause =
            if text.is_empty() { format!("it answered {status}") } else { format!("it answered {status}: {text}") };
        Self { passing, ..Self::new(problem, cause) }
    }
}

/// A registry's code and message.
fn said(error: &oras::errors::OciError) -> String {
    let code = serde_json::to_value(&error.code).ok();
    let code = code.as_ref().and_then(serde_json::Value::as_str).map(quoted).unwrap_or_default();
    let message = quoted(&error.message);
    if message.is_empty() || code.is_empty() { code + &message } else { format!("{code}: {message}") }
}

/// A registry's own words, on one line of the terminal.
fn quoted(text: &str) -> String {
    text.trim().chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        // The URL of an upload holds what lets one go on with it.
        let error = error.without_url();
        if let Some(status) = error.status() {
            return Self::of_status(status.as_u16(), b"");
        }
        of_chain(&error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        of_chain(&error)
    }
}

/// What lies under an error of the HTTP library.
pub(super) fn of_chain(error: &(dyn StdError + 'static)) -> Failure {
    let mut causes: Vec<String> = Vec::new();
    let mut problem = None;
    let mut passing = false;
    let mut next = Some(error);
    while let Some(error) = next {
        let text = quoted(&error.to_string());
        // Wrappers repeat what they wrap.
        if causes.last().is_none_or(|last| *last != text) {
            causes.push(text);
        }
        let inner = error.downcast_ref::<io::Error>();
        if let Some(kind) = inner.map(io::Error::kind) {
            let found = match kind {
                io::ErrorKind::ConnectionRefused => Some(RegistryProblem::Refused),
                io::ErrorKind::TimedOut => Some(RegistryProblem::Unreachable),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                    Some(RegistryProblem::Truncated)
                }
                _ => None,
            };
            problem = problem.or(found);
        }
        if error.is::<rustls::Error>() || inner.and_then(io::Error::get_ref).is_some_and(|e| e.is::<rustls::Error>()) {
            problem = Some(RegistryProblem::Tls);
        }
        if let Some(error) = error.downcast_ref::<reqwest::Error>() {
            if error.is_timeout() {
                problem = problem.or(Some(RegistryProblem::Unreachable));
            } else if !error.is_connect() && (error.is_body() || error.is_request() || error.is_decode()) {
                passing = true;
            }
        }
        next = error.source().or_else(|| inner.and_then(io::Error::get_ref).map(|e| e as &(dyn StdError + 'static)));
    }
    let problem = problem.unwrap_or(if passing { RegistryProblem::Truncated } else { RegistryProblem::Unreachable });
    let passing =
        matches!(problem, RegistryProblem::Truncated | RegistryProblem::Unreachable | RegistryProblem::Refused);
    // The innermost says it; the outermost only that a request failed.
    causes.reverse();
    causes.truncate(3);
    Failure { problem, causes, passing, after: None }
}
