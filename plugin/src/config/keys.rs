//! The reference of every key: the README table and the check for unknown keys
//! come from here.

/// One key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Path from the root; `[]` stands for the items of an array.
    pub path: &'static str,
    /// JSON type and, where it matters, the values.
    pub kind: &'static str,
    pub default: &'static str,
    pub meaning: &'static str,
}

const fn key(path: &'static str, kind: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { path, kind, default: text(default), meaning: text(meaning) }
}

/// The filter itself has no use for explanations.
const fn text(text: &'static str) -> &'static str {
    if cfg!(target_arch = "wasm32") { "" } else { text }
}

const NAMES: &str = "array of names, or object with `add` and `remove`";

pub const KEYS: &[Key] = &[
    key(
        "wire",
        "string: `otlp`, `softprobe`",
        "`otlp`",
        "Form of the exported data: OTLP with semantic conventions, or what Softprobe's runtimes read.",
    ),
    key(
        "sp_backend_url",
        "string: URL",
        "`http://127.0.0.1:4318`; softprobe `https://o.softprobe.ai`",
        "Where exchanges are sent, `/v1/traces` below this URL.",
    ),
    key(
        "backend_cluster",
        "string",
        "`outbound|<port>||<host>`",
        "Envoy cluster that reaches the backend. The default is Istio's name for it.",
    ),
    key("public_key", "string", "none", "Key sent with every upload."),
    key("api_key", "string", "none", "Old name of `public_key`."),
    key(
        "auth",
        "string: `both`, `x-public-key`, `bearer`, `none`",
        "softprobe `both`, otlp `bearer`",
        "How the key is sent. Without a key nothing is.",
    ),
    key(
        "service_name",
        "string",
        "detected",
        "Service reported with every exchange. Otherwise: the header `x-sp-service-name`, the proxy's environment, its node metadata.",
    ),
    key(
        "traffic_direction",
        "string: `server`, `inbound`, `client`, `outbound`, `auto`",
        "`auto`",
        "Side of the workload that is recorded. `auto` asks the listener, at the price of one of the `attributes` for each request.",
    ),
    key("collectionRules", "object", "none", "What to capture. Without rules: everything that is not exempt."),
    key("collectionRules.http", "object", "none", "Rules for HTTP."),
    key("collectionRules.http.server", "array of rules", "`[]`", "Rules for inbound requests. One match suffices."),
    key("collectionRules.http.server[].host", "string: regex", "any", "Searched in the request's host, without port."),
    key(
        "collectionRules.http.server[].path",
        "string: regex",
        "any",
        "Searched in the path without query. Anchor it with `^` and `$`.",
    ),
    key("collectionRules.http.server[].paths", "array of regexes", "any", "As `path`; one match suffices."),
    key("collectionRules.http.client", "array of rules", "`[]`", "Rules for outbound requests. One match suffices."),
    key(
        "collectionRules.http.client[].host",
        "string: regex",
        "any",
        "Searched in the destination's host, without port.",
    ),
    key("collectionRules.http.client[].path", "string: regex", "any", "Searched in the path without query."),
    key("collectionRules.http.client[].paths", "array of regexes", "any", "As `path`; one match suffices."),
    key(
        "exemptionRules",
        "array of rules",
        "telemetry endpoints",
        "What never to capture; wins over `collectionRules`. `[]` exempts nothing.",
    ),
    key("exemptionRules[].hostPatterns", "array of regexes", "any", "Searched in the host, without port."),
    key("exemptionRules[].pathPatterns", "array of regexes", "any", "Searched in the path without query."),
    key("serverPath", "string: regex", "none", "Old form of a `collectionRules.http.server` entry."),
    key("clientHost", "string: regex", "none", "Old form of a `collectionRules.http.client` entry."),
    key("clientPaths", "array of regexes", "any", "Paths that go with `clientHost`."),
    key("skip", "object", "", "Traffic of browsers that is rarely wanted."),
    key("skip.extensions", NAMES, "`js css png …`", "Paths that end in one of these are not captured."),
    key(
        "skip.content_types",
        NAMES,
        "scripts, styles, `image/*`, `font/*`",
        "Responses below 400 of these types are not captured.",
    ),
    key("skip.prefetch", "bool", "`true`", "Prefetches and page data of web frameworks are not captured."),
    key("redact", "object", "", "Secrets that are replaced by `REDACTED` before anything is stored or sent."),
    key("redact.enabled", "bool", "`true`", "Master switch."),
    key(
        "redact.headers",
        NAMES,
        "`authorization x-api-key …`",
        "Header and trailer values. An array replaces the default names, an object edits them; `*` is every name.",
    ),
    key("redact.cookies", NAMES, "`*`", "Values in `cookie` and `set-cookie`, by cookie name."),
    key("redact.query", NAMES, "`access_token sig …`", "Query parameters, also of URLs in headers."),
    key("redact.form", NAMES, "`password token …`", "Fields of urlencoded and multipart forms."),
    key("redact.json", NAMES, "`password token …`", "JSON members at any depth."),
    key(
        "redact.request_body",
        "bool",
        "`true`",
        "Look into request bodies. A body that cannot be read is then left out.",
    ),
    key("redact.response_body", "bool", "`true`", "Look into response bodies."),
    key("masking", "object", "", "Old form of `redact`."),
    key("masking.enabled", "bool", "`true`", "As `redact.enabled`."),
    key("masking.maskRequestHeaders", "array of names", "none", "Added to `redact.headers`."),
    key("masking.maskResponseHeaders", "array of names", "none", "Added to `redact.headers`."),
    key("masking.maskRequestBody", "bool", "`true`", "As `redact.request_body`."),
    key("masking.maskResponseBody", "bool", "`true`", "As `redact.response_body`."),
    key(
        "propagation",
        "string: `w3c`, `none`",
        "`w3c`",
        "`w3c`: captured exchanges become spans of the caller's trace (`traceparent` gets our span id). `none`: no header is ever changed.",
    ),
    key(
        "session",
        "string: `read`, `generate`",
        "softprobe `generate`, otlp `read`",
        "What to do about a request without a session id.",
    ),
    key(
        "skip_gateways",
        "bool",
        "softprobe `true`, otlp `false`",
        "Capture nothing in a proxy that is an Istio gateway.",
    ),
    key(
        "attributes",
        "array: `protocol`, `source`, `destination`, `upstream`",
        "`[\"protocol\"]`",
        "Connection facts recorded with each exchange: HTTP version, addresses of client, listener and upstream. Each costs Envoy some 3 % of a small exchange.",
    ),
    key("limits", "object", "", "Bounds on memory, for each worker thread."),
    key("limits.request_body_bytes", "integer", "65536", "First bytes of a request body that are kept."),
    key("limits.response_body_bytes", "integer", "65536", "First bytes of a response body that are kept."),
    key("limits.exchange_bytes", "integer", "524288", "Encoded exchanges over this are dropped (`too_large`)."),
    key(
        "limits.queue_bytes",
        "integer",
        "16777216",
        "Exchanges waiting or being sent. Over it the oldest are dropped (`queue_full`).",
    ),
    key("limits.batch_bytes", "integer", "524288", "An upload is sent at this size at the latest."),
    key("limits.batch_exchanges", "integer", "256", "An upload is sent at this number at the latest."),
    key("limits.linger_ms", "integer", "50", "How long an exchange waits for others to be sent with."),
    key("export", "object", "", "How uploads are made."),
    key("export.timeout_ms", "integer", "10000", "Deadline of one upload."),
    key("export.concurrency", "integer", "4", "Uploads at the same time, for each worker thread."),
    key("export.drain_ms", "integer", "5000", "How long a replaced filter goes on sending what it has."),
    key(
        "export.load",
        "integer",
        "0",
        "Raised at each reload, as `spctl` does: tells a replaced filter at once that another follows. Without it loads are told apart by 300 ms.",
    ),
    key("export.retry", "object", "", "What happens to an upload that failed in a way that may pass."),
    key("export.retry.initial_ms", "integer", "500", "First pause; doubles each time, with jitter."),
    key("export.retry.max_ms", "integer", "30000", "Longest pause."),
    key("export.retry.max_age_ms", "integer", "300000", "An upload is given up (`retries_exhausted`) at this age."),
    key(
        "log_level",
        "string: `trace` … `critical`, `off`",
        "the proxy's",
        "Can only make the filter quieter than the proxy's `wasm` logger.",
    ),
];

/// Keys that other versions or documents know and that have no effect here.
pub const IGNORED: &[(&str, &str)] = &[
    ("enable_inject", "injection is not available in this version"),
    ("sp_enable_cache", "injection is not available in this version"),
    ("cache_ttl_seconds", "there is no cache"),
    ("max_cache_size_mb", "there is no cache; memory is bounded by `limits`"),
    ("bypass_cache", "there is no cache"),
    ("force_cache_miss", "there is no cache"),
    ("async_timeout_ms", "use `export.timeout_ms`"),
    ("max_concurrent_requests", "use `export.concurrency`"),
    ("enable_detailed_logging", "raise the level of the proxy's `wasm` logger"),
    ("debug_mode", "raise the level of the proxy's `wasm` logger"),
    ("debug_headers", "no debug headers are added"),
    ("region", "not used"),
    ("fallback_enabled", "the filter never holds up traffic"),
    ("fallback_timeout_ms", "the filter never holds up traffic"),
    ("circuit_breaker", "see `export.retry`"),
    ("collectionRules.http.client[].methods", "rules do not look at methods"),
    ("collectionRules.http.client[].exclude", "use `exemptionRules`"),
    ("collectionRules.http.server[].methods", "rules do not look at methods"),
    ("collectionRules.http.server[].exclude", "use `exemptionRules`"),
    ("masking.keepPrefixLength", "no part of a secret is kept"),
    ("masking.keepSuffixLength", "no part of a secret is kept"),
];
