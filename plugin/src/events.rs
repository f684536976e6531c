//! Names of the log lines. A line is `SP <event> key=value…`; names and keys
//! are stable. No line holds a header value, a body or a key.

/// Info: a VM took its configuration. `version`, `wire`, `cluster`, `service`,
/// `warnings`.
pub const STARTED: &str = "started";
/// Error: the configuration was refused. `path`, `reason`.
pub const CONFIG_REFUSED: &str = "config_refused";
/// Warn: a key has no effect. `path`, `reason`.
pub const CONFIG_WARNING: &str = "config_warning";
/// Info: this proxy is a gateway and nothing is captured in it.
pub const GATEWAY_SKIPPED: &str = "gateway_skipped";
/// Debug: an exchange was queued. `status`, `bytes`.
pub const CAPTURED: &str = "captured";
/// Debug: an upload was accepted. `exchanges`.
pub const EXPORTED: &str = "exported";
/// Warn: an upload failed and will be sent again. `status` (0: no answer),
/// `exchanges`, `pause_ms`.
pub const EXPORT_RETRY: &str = "export_retry";
/// Info: uploads work again. `failures`: how many failed before.
pub const EXPORT_RECOVERED: &str = "export_recovered";
/// Warn: exchanges were lost. `reason`, `exchanges`; `status` when the backend
/// said so.
pub const DROPPED: &str = "dropped";
/// Debug: an exchange was answered by the backend. `status`, `bytes`.
pub const INJECTED: &str = "injected";
/// Warn, at most one a second: a lookup failed. `reason`, `failures`: since the
/// last line.
pub const INJECT_FAILED: &str = "inject_failed";
/// Warn: `inject.body` is set, yet no body comes while headers wait; requests
/// are asked for without theirs from now on.
pub const INJECT_NO_BODY: &str = "inject_no_body";
/// Info: a replaced filter left exchanges to the one that replaces it.
/// `exchanges`.
pub const HANDED_OVER: &str = "handed_over";
/// Info: the exchanges of a replaced filter were taken over. `exchanges`.
pub const TAKEN_OVER: &str = "taken_over";
/// Info: a replaced filter sends what it has. `exchanges`.
pub const DRAINING: &str = "draining";
/// Info: a replaced filter is done. `lost`: exchanges that could not be sent.
pub const DRAINED: &str = "drained";

/// Every event, for tools that read the log.
pub const ALL: &[&str] = &[
    STARTED,
    CONFIG_REFUSED,
    CONFIG_WARNING,
    GATEWAY_SKIPPED,
    CAPTURED,
    EXPORTED,
    EXPORT_RETRY,
    EXPORT_RECOVERED,
    DROPPED,
    INJECTED,
    INJECT_FAILED,
    INJECT_NO_BODY,
    HANDED_OVER,
    TAKEN_OVER,
    DRAINING,
    DRAINED,
];
