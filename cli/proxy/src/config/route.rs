//! Where requests go: virtual hosts, routes, what they change on the way.

use std::time::Duration;

use spctl_host::Metadata;

use super::matching::{HeaderMatch, QueryMatch, RouteMatch};
use super::retry::RetryPolicy;

/// The routes for some domains.
#[derive(Debug, Clone, Default)]
pub struct VirtualHost {
    pub name: String,
    /// `a.b`, `*.b`, `a.*` or `*`; ports included, as clients send them.
    pub domains: Vec<String>,
    /// First match wins; none: 404.
    pub routes: Vec<Route>,
    pub headers: HeaderChanges,
    /// For routes that have none of their own.
    pub retry: Option<RetryPolicy>,
    /// Tell upstreams in `x-envoy-attempt-count` which try theirs is.
    pub include_request_attempt_count: bool,
    /// The same for clients.
    pub include_attempt_count_in_response: bool,
}

/// What is added to and removed from messages. Values are formats
/// (`%REQ(name)%` and the like).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    pub request_add: Vec<HeaderToAdd>,
    pub request_remove: Vec<String>,
    pub response_add: Vec<HeaderToAdd>,
    pub response_remove: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderToAdd {
    pub name: String,
    pub value: String,
    pub action: HeaderAction,
}

/// What becomes of a header that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderAction {
    #[default]
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}

/// What the upstream sees as its host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostRewrite {
    /// What the client sent.
    #[default]
    Keep,
    /// This (`host_rewrite_literal`).
    Literal(String),
    /// The chosen endpoint's name (`auto_host_rewrite`).
    Auto,
}

/// What the upstream sees as its path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PathRewrite {
    #[default]
    Keep,
    /// In place of what the route matched.
    Prefix(String),
    /// RE2, in the path without its query; `\1` stands for a group.
    Regex { pattern: String, substitution: String },
}

/// Whether a route lets clients change to a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteUpgrade {
    /// As in the `upgrade` header, or `CONNECT`.
    pub name: String,
    pub enabled: bool,
}

/// An answer in place of an upstream's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Redirect(Redirect),
    Direct { status: u16, body: String },
}

/// Where a client is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    /// All of the path; the query stays unless this has one.
    pub path: Option<String>,
    /// Part of the path.
    pub path_rewrite: PathRewrite,
    pub strip_query: bool,
    pub status: u16,
}

impl Default for Redirect {
    /// To where the client was, with 301.
    fn default() -> Self {
        Self {
            scheme: None,
            host: None,
            port: None,
            path: None,
            path_rewrite: PathRewrite::Keep,
            strip_query: false,
            status: 301,
        }
    }
}

/// Requests that are treated alike.
#[derive(Debug, Clone)]
pub struct Route {
    pub name: String,
    pub matches: RouteMatch,
    pub match_headers: Vec<HeaderMatch>,
    pub match_query: Vec<QueryMatch>,
    pub cluster: String,
    /// Clusters in proportion to their weights, in place of `cluster`.
    pub weighted_clusters: Vec<(String, u32)>,
    /// In place of any cluster.
    pub answer: Option<Answer>,
    /// Zero: none.
    pub timeout: Duration,
    pub path_rewrite: PathRewrite,
    pub host_rewrite: HostRewrite,
    pub headers: HeaderChanges,
    /// None: no other tries, unless the request asks for them.
    pub retry: Option<RetryPolicy>,
    /// In place of the listener's `stream_idle_timeout`.
    pub idle_timeout: Option<Duration>,
    /// In place of the listener's `upgrades`, for those that are named.
    pub upgrades: Vec<RouteUpgrade>,
    pub metadata: Metadata,
}

impl Route {
    /// Everything below `prefix` to `cluster`, within Envoy's default 15 s.
    pub fn new(prefix: impl Into<String>, cluster: impl Into<String>) -> Self {
        Self {
            name: String::new(),
            matches: RouteMatch::Prefix(prefix.into()),
            match_headers: Vec::new(),
            match_query: Vec::new(),
            cluster: cluster.into(),
            weighted_clusters: Vec::new(),
            answer: None,
            timeout: Duration::from_secs(15),
            path_rewrite: PathRewrite::Keep,
            host_rewrite: HostRewrite::Keep,
            headers: HeaderChanges::default(),
            retry: None,
            idle_timeout: None,
            upgrades: Vec::new(),
            metadata: Metadata::new(),
        }
    }

    /// The clusters it may send to.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        let only = (self.answer.is_none() && self.weighted_clusters.is_empty()).then_some(self.cluster.as_str());
        only.into_iter().chain(self.weighted_clusters.iter().map(|(name, _)| name.as_str()))
    }
}
