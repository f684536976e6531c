//! Retry policies: what is tried again, and how often.

use std::time::Duration;

use spctl_host::HeaderList;

use crate::config::{RetryOn, RetryPolicy};
use crate::http1::tokens;
use crate::upstream::{ConnectError, Failure};

/// Envoy's default `base_interval` of the back-off.
const BASE_INTERVAL: Duration = Duration::from_millis(25);

/// What is left of a request's policy.
#[derive(Debug, Clone)]
pub(super) struct Retry {
    on: Vec<RetryOn>,
    status_codes: Vec<u16>,
    left: u32,
    made: u32,
}

impl Retry {
    /// The route's policy, and what the request's own headers add to it.
    pub(super) fn new(policy: Option<&RetryPolicy>, headers: &HeaderList) -> Option<Self> {
        let text = |name: &str| std::str::from_utf8(headers.get(name.as_bytes())?).ok();
        let mut retry = Self {
            on: policy.map(|policy| policy.on.clone()).unwrap_or_default(),
            status_codes: policy.map(|policy| policy.retriable_status_codes.clone()).unwrap_or_default(),
            left: policy.map_or(1, |policy| policy.num_retries),
            made: 0,
        };
        for name in ["x-envoy-retry-on", "x-envoy-retry-grpc-on"] {
            let named = headers.get(name.as_bytes()).into_iter().flat_map(tokens);
            retry.on.extend(named.filter_map(|token| RetryOn::from_name(std::str::from_utf8(token).ok()?)));
        }
        if let Some(codes) = text("x-envoy-retriable-status-codes") {
            retry.status_codes.extend(codes.split(',').filter_map(|code| code.trim().parse::<u16>().ok()));
        }
        if let Some(count) = text("x-envoy-max-retries").and_then(|count| count.parse().ok()) {
            retry.left = count;
        }
        (!retry.on.is_empty()).then_some(retry)
    }

    fn is_on(&self, conditions: &[RetryOn]) -> bool {
        self.on.iter().any(|on| conditions.contains(on))
    }

    /// An answer that the policy does not want.
    pub(super) fn wants_after_status(&self, code: u16) -> bool {
        match code {
            502..=504 if self.is_on(&[RetryOn::ServerError, RetryOn::GatewayError]) => true,
            500..=599 if self.is_on(&[RetryOn::ServerError]) => true,
            409 if self.is_on(&[RetryOn::Retriable4xx]) => true,
            _ => self.is_on(&[RetryOn::RetriableStatusCodes]) && self.status_codes.contains(&code),
        }
    }

    /// No answer at all.
    pub(super) fn wants_after_failure(&self, failure: &Failure) -> bool {
        let always = [RetryOn::Reset, RetryOn::ServerError, RetryOn::GatewayError];
        self.is_on(&always)
            || match failure {
                Failure::Refused => self.is_on(&[RetryOn::RefusedStream]),
                Failure::Connect(ConnectError::Timeout | ConnectError::Failed(_)) => {
                    self.is_on(&[RetryOn::ConnectFailure, RetryOn::ResetBeforeRequest])
                }
                _ => false,
            }
    }

    /// A try took longer than it may.
    pub(super) fn wants_after_timeout(&self) -> bool {
        self.is_on(&[RetryOn::Reset, RetryOn::ServerError, RetryOn::GatewayError])
    }

    /// Takes one retry; none are left: None. The wait before it is drawn from
    /// Envoy's exponential back-off with full jitter.
    pub(super) fn take(&mut self, random: u64) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        self.made += 1;
        let most = BASE_INTERVAL * ((1 << self.made.min(4)) - 1).min(10);
        Some(Duration::from_millis(random % u64::try_from(most.as_millis()).unwrap_or(1).max(1)))
    }

    /// Some have been made.
    pub(super) fn has_tried(&self) -> bool {
        self.made > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: &[RetryOn]) -> Retry {
        let policy = RetryPolicy { on: on.to_vec(), retriable_status_codes: vec![418], ..RetryPolicy::default() };
        Retry::new(Some(&policy), &HeaderList::default()).unwrap_or_else(|| panic!("no policy"))
    }

    #[test]
    fn each_condition_covers_what_envoy_says_it_covers() {
        let terminated = Failure::Terminated;
        assert!(policy(&[RetryOn::ServerError]).wants_after_status(500));
        assert!(!policy(&[RetryOn::GatewayError]).wants_after_status(500));
        assert!(policy(&[RetryOn::GatewayError]).wants_after_failure(&terminated));
        assert!(policy(&[RetryOn::RetriableStatusCodes]).wants_after_status(418));
        assert!(!policy(&[RetryOn::Reset]).wants_after_status(503));
        assert!(policy(&[RetryOn::Retriable4xx]).wants_after_status(409));
        assert!(policy(&[RetryOn::ConnectFailure]).wants_after_failure(&Failure::Connect(ConnectError::Timeout)));
        assert!(!policy(&[RetryOn::ConnectFailure]).wants_after_failure(&terminated));
        assert!(policy(&[RetryOn::RefusedStream]).wants_after_failure(&Failure::Refused));
    }

    #[test]
    fn a_request_may_bring_its_own_policy() {
        let headers: HeaderList = [
            ("x-envoy-retry-on", "5xx, retriable-status-codes"),
            ("x-envoy-max-retries", "3"),
            ("x-envoy-retriable-status-codes", "404"),
        ]
        .into_iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
        let mut retry = Retry::new(None, &headers).unwrap_or_else(|| panic!("no policy"));
        assert!(retry.wants_after_status(404) && retry.wants_after_status(500) && !retry.wants_after_status(400));
        let waits: Vec<_> = (0..4).map(|_| retry.take(7)).collect();
        assert!(waits[..3].iter().all(Option::is_some) && waits[3].is_none());
    }
}
