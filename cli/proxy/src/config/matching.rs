//! Which requests a route takes.

/// By path. All but `Connect` take no tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteMatch {
    /// Path and query begin with this.
    Prefix(String),
    /// The path without its query is this.
    Path(String),
    /// The path without its query is this, or goes on with a slash.
    PathSeparatedPrefix(String),
    /// RE2 that the whole path without its query matches.
    Regex(String),
    /// Tunnels (`connect_matcher`).
    Connect,
}

/// What a text must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    /// RE2 that all of it matches.
    Regex(String),
}

/// By one header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    pub name: String,
    /// None: it is there.
    pub value: Option<TextMatch>,
    /// Take the requests that do not match.
    pub invert: bool,
}

/// By one parameter of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatch {
    pub name: String,
    /// None: it is there.
    pub value: Option<TextMatch>,
}
