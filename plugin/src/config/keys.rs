//! The reference of every key: the README table and the check for unknown keys
//! come from here.

/// One key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Path from the root; `[]` stands for the items of an array.
    pub path: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub meaning: &'static str,
}

/// JSON type of a value, and which values are possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Url,
    Regex,
    Bool,
    /// From, to.
    Integer(u64, u64),
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// An array of these strings.
    Set(&'static [&'static str]),
    Texts,
    Regexes,
    /// An object of strings.
    Headers,
    /// A bool, or one that is spelled as a string.
    Flag,
    /// An array of strings, or an object that edits the default.
    Names,
    Object,
    /// An array of objects, each with one of these members, not empty.
    Objects(&'static [&'static str]),
}

const fn key(path: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key { path, kind, default: text(default), meaning: text(meaning) }
}

/// The filter itself has no use for explanations.
const fn text(text: &'static str) -> &'static str {
    if cfg!(target_arch = "wasm32") { "" } else { text }
}

const MIB: u64 = 1 << 20;
const HOUR_MS: u64 = 3_600_000;

pub const KEYS: &[Key] = &[
    key(
        "wire",
        Kind::Choice(&["otlp", "softprobe", "apiclarity", "apiclarity-v1"]),
        "`otlp`",
        "Form of the exported data: OTLP with semantic conventions, what Softprobe's runtimes read, or APIClarity's telemetry (`/api/telemetry`, before November 2021 `/publish`).",
    ),
    key(
        "sp_backend_url",
        Kind::Url,
        "`http://127.0.0.1:4318`; softprobe `https://o.softprobe.ai`; apiclarity `http://apiclarity`",
        "Where exchanges are sent, below this URL: `/v1/traces`, or the wire's own path.",
    ),
    key(
        "backend_cluster",
        Kind::Text,
        "`outbound|<port>||<host>`; apiclarity `trace_analyzer`",
        "Envoy cluster that reaches the backend. The default is Istio's name for it.",
    ),
    key("public_key", Kind::Text, "none", "Key sent with every upload."),
    key("api_key", Kind::Text, "none", "Old name of `public_key`."),
    key(
        "auth",
        Kind::Choice(&["both", "x-public-key", "bearer", "none"]),
        "softprobe `both`, otlp `bearer`",
        "How the key is sent. Without a key nothing is.",
    ),
    key(
        "service_name",
        Kind::Text,
        "detected",
        "Service reported with every exchange. Otherwise: the header `x-sp-service-name`, the proxy's environment, its node metadata.",
    ),
    key(
        "traffic_direction",
        Kind::Choice(&["auto", "server", "inbound", "client", "outbound"]),
        "`auto`",
        "Side of the workload that is recorded. `auto` asks the listener, at the price of one of the `attributes` for each request.",
    ),
    key(
        "trace_sampling_enabled",
        Kind::Flag,
        "`false`",
        "apiclarity: captures only the hosts that its sampling manager names (`/api/hostsToTrace`, asked for every minute).",
    ),
    key(
        "sampling_cluster",
        Kind::Text,
        "`trace-sampling-manager`",
        "apiclarity: Envoy cluster of the sampling manager.",
    ),
    key(
        "service_mesh",
        Kind::Choice(&["istio", "kuma"]),
        "`istio`",
        "apiclarity: whose metadata tells the destination's namespace.",
    ),
    key("collectionRules", Kind::Object, "none", "What to capture. Without rules: everything that is not exempt."),
    key("collectionRules.http", Kind::Object, "none", "Rules for HTTP."),
    key(
        "collectionRules.http.server",
        Kind::Objects(&["host", "path", "paths"]),
        "`[]`",
        "Rules for inbound requests. One match suffices.",
    ),
    key("collectionRules.http.server[].host", Kind::Regex, "any", "Searched in the request's host, without port."),
    key(
        "collectionRules.http.server[].path",
        Kind::Regex,
        "any",
        "Searched in the path without query. Anchor it with `^` and `$`.",
    ),
    key("collectionRules.http.server[].paths", Kind::Regexes, "any", "As `path`; one match suffices."),
    key(
        "collectionRules.http.client",
        Kind::Objects(&["host", "path", "paths"]),
        "`[]`",
        "Rules for outbound requests. One match suffices.",
    ),
    key("collectionRules.http.client[].host", Kind::Regex, "any", "Searched in the destination's host, without port."),
    key("collectionRules.http.client[].path", Kind::Regex, "any", "Searched in the path without query."),
    key("collectionRules.http.client[].paths", Kind::Regexes, "any", "As `path`; one match suffices."),
    key(
        "exemptionRules",
        Kind::Objects(&["hostPatterns", "pathPatterns"]),
        "telemetry endpoints",
        "What never to capture; wins over `collectionRules`. `[]` exempts nothing.",
    ),
    key("exemptionRules[].hostPatterns", Kind::Regexes, "any", "Searched in the host, without port."),
    key("exemptionRules[].pathPatterns", Kind::Regexes, "any", "Searched in the path without query."),
    key("serverPath", Kind::Regex, "none", "Old form of a `collectionRules.http.server` entry."),
    key("clientHost", Kind::Regex, "none", "Old form of a `collectionRules.http.client` entry."),
    key("clientPaths", Kind::Regexes, "any", "Paths that go with `clientHost`."),
    key("skip", Kind::Object, "", "Traffic of browsers that is rarely wanted."),
    key("skip.extensions", Kind::Names, "`js css png …`", "Paths that end in one of these are not captured."),
    key(
        "skip.content_types",
        Kind::Names,
        "scripts, styles, `image/*`, `font/*`",
        "Responses below 400 of these types are not captured.",
    ),
    key("skip.prefetch", Kind::Bool, "`true`", "Prefetches and page data of web frameworks are not captured."),
    key("redact", Kind::Object, "", "Secrets that are replaced by `REDACTED` before anything is stored or sent."),
    key("redact.enabled", Kind::Bool, "`true`", "Master switch."),
    key(
        "redact.headers",
        Kind::Names,
        "`authorization x-api-key …`",
        "Header and trailer values. An array replaces the default names, an object edits them; `*` is every name.",
    ),
    key("redact.cookies", Kind::Names, "`*`", "Values in `cookie` and `set-cookie`, by cookie name."),
    key("redact.query", Kind::Names, "`access_token sig …`", "Query parameters, also of URLs in headers."),
    key("redact.form", Kind::Names, "`password token …`", "Fields of urlencoded and multipart forms."),
    key("redact.json", Kind::Names, "`password token …`", "JSON members at any depth."),
    key(
        "redact.request_body",
        Kind::Bool,
        "`true`",
        "Look into request bodies. A body that cannot be read is then left out.",
    ),
    key("redact.response_body", Kind::Bool, "`true`", "Look into response bodies."),
    key("masking", Kind::Object, "", "Old form of `redact`."),
    key("masking.enabled", Kind::Bool, "`true`", "As `redact.enabled`."),
    key("masking.maskRequestHeaders", Kind::Texts, "none", "Added to `redact.headers`."),
    key("masking.maskResponseHeaders", Kind::Texts, "none", "Added to `redact.headers`."),
    key("masking.maskRequestBody", Kind::Bool, "`true`", "As `redact.request_body`."),
    key("masking.maskResponseBody", Kind::Bool, "`true`", "As `redact.response_body`."),
    key(
        "propagation",
        Kind::Choice(&["w3c", "none"]),
        "`w3c`",
        "`w3c`: captured exchanges become spans of the caller's trace (`traceparent` gets our span id). `none`: no header is ever changed.",
    ),
    key(
        "session",
        Kind::Choice(&["read", "generate"]),
        "softprobe `generate`, otlp `read`",
        "What to do about a request without a session id.",
    ),
    key(
        "skip_gateways",
        Kind::Bool,
        "softprobe `true`, otlp `false`",
        "Capture nothing in a proxy that is an Istio gateway.",
    ),
    key(
        "attributes",
        Kind::Set(&["protocol", "source", "destination", "upstream"]),
        "`[]`; apiclarity `[\"source\", \"destination\"]`",
        "Connection facts recorded with each exchange: HTTP version, addresses of client, listener and upstream. Each costs Envoy some 5 % of a small exchange.",
    ),
    key(
        "inject",
        Kind::Object,
        "",
        "Answers from the backend instead of the upstream, for exchanges that are captured.",
    ),
    key("inject.enabled", Kind::Bool, "`false`", "Asks the backend for an answer before a request goes on."),
    key(
        "inject.direction",
        Kind::Choice(&["outbound", "inbound", "both"]),
        "`outbound`",
        "Requests that are asked for.",
    ),
    key(
        "inject.rules",
        Kind::Objects(&["host", "path", "paths"]),
        "none",
        "Requests that are asked for; without rules all. One match suffices.",
    ),
    key("inject.rules[].host", Kind::Regex, "any", "Searched in the request's host, without port."),
    key("inject.rules[].path", Kind::Regex, "any", "Searched in the path without query."),
    key("inject.rules[].paths", Kind::Regexes, "any", "As `path`; one match suffices."),
    key(
        "inject.timeout_ms",
        Kind::Integer(1, 60_000),
        "500",
        "How long a request waits: for its body, then for the answer. Then it goes on.",
    ),
    key(
        "inject.body",
        Kind::Bool,
        "`false`",
        "Asks with the request's body. Needs `allow_on_headers_stop_iteration: true` in Envoy's plugin configuration (Envoy 1.35), which a WasmPlugin cannot set: elsewhere no body comes while the headers wait.",
    ),
    key(
        "inject.body_bytes",
        Kind::Integer(0, 256 << 10),
        "65536",
        "Requests with a longer body are asked for without it, or go on.",
    ),
    key(
        "inject.strict",
        Kind::Bool,
        "`false`",
        "A lookup that fails is answered with 503. Otherwise the request goes on, as after a miss.",
    ),
    key("enable_inject", Kind::Bool, "`false`", "Old name of `inject.enabled`."),
    key("sp_enable_cache", Kind::Bool, "`false`", "Old name of `inject.enabled`."),
    key("limits", Kind::Object, "", "Bounds on memory, for each worker thread."),
    key(
        "limits.streams_bytes",
        Kind::Integer(64 << 10, 512 * MIB),
        "33554432",
        "Headers and bodies of exchanges under way. Over it bodies are cut, then exchanges dropped (`memory`).",
    ),
    key(
        "limits.request_body_bytes",
        Kind::Integer(0, 16 * MIB),
        "65536",
        "First bytes of a request body that are kept.",
    ),
    key(
        "limits.response_body_bytes",
        Kind::Integer(0, 16 * MIB),
        "65536",
        "First bytes of a response body that are kept.",
    ),
    key(
        "limits.exchange_bytes",
        Kind::Integer(1024, 64 * MIB),
        "524288",
        "Encoded exchanges over this are dropped (`too_large`).",
    ),
    key(
        "limits.queue_bytes",
        Kind::Integer(1024, 512 * MIB),
        "16777216",
        "Exchanges waiting or being sent. Over it the oldest are dropped (`queue_full`).",
    ),
    key("limits.batch_bytes", Kind::Integer(1, 32 * MIB), "524288", "An upload is sent at this size at the latest."),
    key("limits.batch_exchanges", Kind::Integer(1, 65_536), "256", "An upload is sent at this number at the latest."),
    key("limits.linger_ms", Kind::Integer(1, 60_000), "50", "How long an exchange waits for others to be sent with."),
    key("export", Kind::Object, "", "How uploads are made."),
    key("export.timeout_ms", Kind::Integer(1, 600_000), "10000", "Deadline of one upload."),
    key("export.concurrency", Kind::Integer(1, 16), "4", "Uploads at the same time, for each worker thread."),
    key(
        "export.drain_ms",
        Kind::Integer(0, 600_000),
        "5000",
        "How long a replaced filter goes on sending what it has.",
    ),
    key(
        "export.load",
        Kind::Integer(0, u64::MAX >> 11),
        "0",
        "Raised at each reload, as `spctl` does: tells a replaced filter at once that another follows. Without it loads are told apart by 300 ms.",
    ),
    key("export.headers", Kind::Headers, "none", "Headers sent with every upload, as a collector may ask for."),
    key("export.retry", Kind::Object, "", "What happens to an upload that failed in a way that may pass."),
    key("export.retry.initial_ms", Kind::Integer(1, HOUR_MS), "500", "First pause; doubles each time, with jitter."),
    key("export.retry.max_ms", Kind::Integer(1, HOUR_MS), "30000", "Longest pause."),
    key(
        "export.retry.max_age_ms",
        Kind::Integer(0, 24 * HOUR_MS),
        "300000",
        "An upload is given up (`retries_exhausted`) at this age.",
    ),
    key(
        "log_level",
        Kind::Choice(&["trace", "debug", "info", "warn", "error", "critical", "off"]),
        "the proxy's",
        "Can only make the filter quieter than the proxy's `wasm` logger.",
    ),
];

/// Keys that other versions or documents know and that have no effect here.
pub const IGNORED: &[(&str, &str)] = &[
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
