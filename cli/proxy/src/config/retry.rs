//! Which failures are tried again.

use std::time::Duration;

/// What a request is tried again after (`retry_on`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    ServerError,
    GatewayError,
    Reset,
    ResetBeforeRequest,
    ConnectFailure,
    Retriable4xx,
    RefusedStream,
    RetriableStatusCodes,
}

impl RetryOn {
    /// By Envoy's name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "5xx" => Self::ServerError,
            "gateway-error" => Self::GatewayError,
            "reset" => Self::Reset,
            "reset-before-request" => Self::ResetBeforeRequest,
            "connect-failure" => Self::ConnectFailure,
            "retriable-4xx" => Self::Retriable4xx,
            "refused-stream" => Self::RefusedStream,
            "retriable-status-codes" => Self::RetriableStatusCodes,
            _ => return None,
        })
    }
}

/// Which failures are tried again, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    pub on: Vec<RetryOn>,
    pub num_retries: u32,
    /// Zero: a try may take as long as the route's timeout.
    pub per_try_timeout: Duration,
    pub retriable_status_codes: Vec<u16>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { on: Vec::new(), num_retries: 1, per_try_timeout: Duration::ZERO, retriable_status_codes: Vec::new() }
    }
}
