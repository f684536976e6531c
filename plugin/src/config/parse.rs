//! From JSON to `Config`, every failure with the path of its key.

use super::keys::{IGNORED, KEYS, Kind};
use super::object::{Object, Result, error};
use super::*;
use crate::policy::{Pattern, Rule, STATIC_CONTENT_TYPES, STATIC_EXTENSIONS, TELEMETRY_PATHS};
use crate::redact::defaults;
use serde_json::{Map, Value};

/// Parses a plugin configuration. No bytes at all mean an empty object.
pub fn parse(bytes: &[u8]) -> Result<Parsed> {
    let text = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    let document: Value = serde_json::from_slice(text).map_err(|e| error("", format!("not JSON: {e}")))?;
    let Value::Object(map) = &document else {
        return Err(error("", "must be a JSON object"));
    };
    let root = Object { map: Some(map), path: String::new() };
    let mut warnings = Vec::new();
    find_unknown(&document, "", "", &mut warnings);
    Ok(Parsed { config: read(&root, &mut warnings)?, warnings })
}

fn read(root: &Object<'_>, warnings: &mut Vec<Warning>) -> Result<Config> {
    let (wire, auth, session, url) = match root.choice("wire")? {
        Some(1) => (WireKind::Softprobe, Auth::Both, Session::Generate, "https://o.softprobe.ai"),
        Some(2) => (WireKind::ApiClarity, Auth::None, Session::Read, "http://apiclarity"),
        Some(3) => (WireKind::ApiClarityV1, Auth::None, Session::Read, "http://scn"),
        _ => (WireKind::Otlp, Auth::Bearer, Session::Read, "http://127.0.0.1:4318"),
    };
    let public_key = match root.string("public_key")?.filter(|key| !key.is_empty()) {
        Some(key) => Some(key),
        None => root.string("api_key")?.filter(|key| !key.is_empty()),
    };
    if let Some(key) = public_key
        && !key.bytes().all(|b| (0x21..=0x7e).contains(&b))
    {
        return Err(error("public_key", "must be printable characters without spaces"));
    }
    let mut inject = inject(root)?;
    if inject.enabled && wire.is_apiclarity() {
        let message = "APIClarity answers no lookups: `inject` has no effect on this wire";
        warnings.push(Warning { path: "inject.enabled".to_owned(), message: message.to_owned() });
        inject.enabled = false;
    }
    let mut limits = limits(&root.object("limits")?)?;
    if wire.is_apiclarity() {
        limits.batch_exchanges = 1;
    }
    Ok(Config {
        wire,
        backend: backend(root, url, wire)?,
        public_key: public_key.map(str::to_owned),
        auth: match root.choice("auth")? {
            Some(0) => Auth::Both,
            Some(1) => Auth::PublicKey,
            Some(2) => Auth::Bearer,
            Some(_) => Auth::None,
            None => auth,
        },
        // `default-service` is how older configurations say "detect".
        service_name: root.string("service_name")?.filter(|s| !matches!(*s, "" | "default-service")).map(str::to_owned),
        direction: match root.choice("traffic_direction")? {
            Some(1 | 2) => Some(Direction::Inbound),
            Some(3 | 4) => Some(Direction::Outbound),
            _ => None,
        },
        policy: policy(root)?,
        redact: redactor(root, warnings)?,
        inject,
        mesh: if root.choice("service_mesh")? == Some(1) { Mesh::Kuma } else { Mesh::Istio },
        sampling: sampling(root, wire, warnings)?,
        limits,
        export: export(&root.object("export")?)?,
        propagation: match root.choice("propagation")? {
            Some(1) => Propagation::None,
            _ => Propagation::W3c,
        },
        session: match root.choice("session")? {
            Some(0) => Session::Read,
            Some(_) => Session::Generate,
            None => session,
        },
        skip_gateways: root.bool("skip_gateways")?.unwrap_or(wire == WireKind::Softprobe),
        attributes: attributes(root, wire)?,
        log_level: Level::from_number(root.choice("log_level")?.unwrap_or(0) as u32),
    })
}

fn backend(root: &Object<'_>, default: &str, wire: WireKind) -> Result<Backend> {
    let url = root.string("sp_backend_url")?.unwrap_or(default);
    let bad = |message: &str| error("sp_backend_url", message);
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("must start with `http://` or `https://`"))?;
    let scheme = scheme.to_ascii_lowercase();
    let standard = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return Err(bad("must start with `http://` or `https://`")),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if !rest.bytes().all(|b| b.is_ascii_graphic()) || rest.contains(['?', '#']) || authority.contains('@') {
        return Err(bad("must be scheme, host, port and path only"));
    }
    let (host, port) = crate::policy::split_authority(authority.as_bytes());
    let host = String::from_utf8_lossy(host).into_owned();
    if host.is_empty() {
        return Err(bad("has no host"));
    }
    if port.is_none() && authority.len() != host.len() || port == Some(0) {
        return Err(bad("has a bad port"));
    }
    let port = port.unwrap_or(standard);
    let path = path.trim_end_matches('/');
    let base = path.strip_suffix("/v1/traces").unwrap_or(path).to_owned();
    let authority = if port == standard { host.clone() } else { format!("{host}:{port}") };
    let cluster = match root.string("backend_cluster")?.filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        // How APIClarity's deployments name it.
        None if wire.is_apiclarity() => "trace_analyzer".to_owned(),
        None => format!("outbound|{port}||{}", host.trim_matches(['[', ']'])),
    };
    Ok(Backend { scheme, authority, host, port, base, cluster })
}

fn policy(root: &Object<'_>) -> Result<Policy> {
    let http = root.object("collectionRules")?.object("http")?;
    let mut server = rules(&http, "server")?;
    let mut client = rules(&http, "client")?;
    if let Some(pattern) = root.pattern("serverPath")? {
        server.push(Rule { hosts: Vec::new(), paths: vec![pattern] });
    }
    let paths = root.patterns("clientPaths")?;
    if let Some(pattern) = root.pattern("clientHost")? {
        client.push(Rule { hosts: vec![pattern], paths });
    }
    let exempt = match root.objects("exemptionRules")? {
        Some(entries) => {
            let mut rules = Vec::with_capacity(entries.len());
            for entry in &entries {
                let rule = Rule { hosts: entry.patterns("hostPatterns")?, paths: entry.patterns("pathPatterns")? };
                rules.push(nonempty(rule, &entry.path, "needs `hostPatterns` or `pathPatterns`")?);
            }
            rules
        }
        None => vec![Rule {
            hosts: Vec::new(),
            paths: TELEMETRY_PATHS.iter().map(|path| Pattern::Contains((*path).to_owned())).collect(),
        }],
    };
    let skip = root.object("skip")?;
    Ok(Policy {
        server,
        client,
        exempt,
        extensions: skip.names("extensions", &STATIC_EXTENSIONS)?,
        content_types: skip.names("content_types", &STATIC_CONTENT_TYPES)?,
        prefetch: skip.bool("prefetch")?.unwrap_or(true),
    })
}

fn rules(http: &Object<'_>, side: &str) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for entry in http.objects(side)?.unwrap_or_default() {
        let mut paths = entry.patterns("paths")?;
        paths.extend(entry.pattern("path")?);
        let rule = Rule { hosts: entry.pattern("host")?.into_iter().collect(), paths };
        rules.push(nonempty(rule, &entry.path, "needs `host`, `path` or `paths`")?);
    }
    Ok(rules)
}

/// A rule that says nothing would select everything: more likely a mistake.
fn nonempty(rule: Rule, path: &str, message: &str) -> Result<Rule> {
    if rule.hosts.is_empty() && rule.paths.is_empty() { Err(error(path, message)) } else { Ok(rule) }
}

fn sampling(root: &Object<'_>, wire: WireKind, warnings: &mut Vec<Warning>) -> Result<Option<Sampling>> {
    let enabled = match root.value("trace_sampling_enabled") {
        // As its own filter had it.
        Some(Value::String(text)) => {
            if !matches!(text.as_str(), "true" | "false") {
                let message = "is neither `true` nor `false`, and taken for `false`";
                warnings.push(Warning { path: "trace_sampling_enabled".to_owned(), message: message.to_owned() });
            }
            text == "true"
        }
        _ => root.bool("trace_sampling_enabled")?.unwrap_or(false),
    };
    let cluster = root.string("sampling_cluster")?.unwrap_or("trace-sampling-manager").to_owned();
    Ok((enabled && wire.is_apiclarity()).then_some(Sampling { cluster }))
}

fn inject(root: &Object<'_>) -> Result<Inject> {
    let inject = root.object("inject")?;
    let old = match root.bool("enable_inject")? {
        Some(flag) => Some(flag),
        None => root.bool("sp_enable_cache")?,
    };
    Ok(Inject {
        enabled: inject.bool("enabled")?.or(old).unwrap_or(false),
        direction: match inject.choice("direction")? {
            Some(1) => Some(Direction::Inbound),
            Some(2) => None,
            _ => Some(Direction::Outbound),
        },
        rules: rules(&inject, "rules")?,
        timeout_ms: inject.integer("timeout_ms")?.unwrap_or(500),
        body: inject.bool("body")?.unwrap_or(false),
        body_bytes: inject.integer("body_bytes")?.unwrap_or(64 << 10) as usize,
        strict: inject.bool("strict")?.unwrap_or(false),
    })
}

fn redactor(root: &Object<'_>, warnings: &mut Vec<Warning>) -> Result<Redactor> {
    let redact = root.object("redact")?;
    let masking = root.object("masking")?;
    if masking.map.is_some() && redact.map.is_some() {
        let message = "`redact` is given too and wins where both say something";
        warnings.push(Warning { path: "masking".to_owned(), message: message.to_owned() });
    }
    let mut headers = redact.names("headers", &defaults::HEADERS)?;
    for list in ["maskRequestHeaders", "maskResponseHeaders"] {
        for name in masking.strings(list)?.unwrap_or_default() {
            // Cookies are redacted by their names, below.
            if !matches!(name.to_ascii_lowercase().as_str(), "cookie" | "set-cookie") {
                headers.insert(name);
            }
        }
    }
    let flag = |new: &str, old: &str| Ok(redact.bool(new)?.or(masking.bool(old)?).unwrap_or(true));
    Ok(Redactor {
        enabled: flag("enabled", "enabled")?,
        headers,
        cookies: redact.names("cookies", &["*"])?,
        query: redact.names("query", &defaults::QUERY)?,
        form: redact.names("form", &defaults::FIELDS)?,
        json: redact.names("json", &defaults::FIELDS)?,
        request_body: flag("request_body", "maskRequestBody")?,
        response_body: flag("response_body", "maskResponseBody")?,
    })
}

fn limits(limits: &Object<'_>) -> Result<Limits> {
    let bytes = |key, default| Ok(limits.integer(key)?.unwrap_or(default) as usize);
    Ok(Limits {
        streams_bytes: bytes("streams_bytes", 32 << 20)?,
        request_body_bytes: bytes("request_body_bytes", 64 << 10)?,
        response_body_bytes: bytes("response_body_bytes", 64 << 10)?,
        exchange_bytes: bytes("exchange_bytes", 512 << 10)?,
        queue_bytes: bytes("queue_bytes", 16 << 20)?,
        batch_bytes: bytes("batch_bytes", 512 << 10)?,
        batch_exchanges: bytes("batch_exchanges", 256)?,
        linger_ms: limits.integer("linger_ms")?.unwrap_or(50),
    })
}

fn export(export: &Object<'_>) -> Result<Export> {
    let retry = export.object("retry")?;
    Ok(Export {
        timeout_ms: export.integer("timeout_ms")?.unwrap_or(10_000),
        concurrency: export.integer("concurrency")?.unwrap_or(4) as usize,
        drain_ms: export.integer("drain_ms")?.unwrap_or(5_000),
        load: export.integer("load")?.unwrap_or(0),
        headers: headers(export)?,
        retry: Retry {
            initial_ms: retry.integer("initial_ms")?.unwrap_or(500),
            max_ms: retry.integer("max_ms")?.unwrap_or(30_000),
            max_age_ms: retry.integer("max_age_ms")?.unwrap_or(300_000),
        },
    })
}

/// Headers that go out as they are written here.
fn headers(export: &Object<'_>) -> Result<Vec<(String, String)>> {
    let object = export.object("headers")?;
    let mut headers = Vec::new();
    for name in object.map.into_iter().flat_map(Map::keys) {
        let value = object.string(name)?.unwrap_or_default();
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(error(&object.path_of(name), "is not a header name"));
        }
        if !value.bytes().all(|b| matches!(b, b' '..=b'~')) {
            return Err(error(&object.path_of(name), "must be printable ASCII"));
        }
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Ok(headers)
}

fn attributes(root: &Object<'_>, wire: WireKind) -> Result<Attributes> {
    // APIClarity's form has a place for both addresses.
    let peers = wire.is_apiclarity();
    let Some(names) = root.strings("attributes")? else {
        return Ok(Attributes { protocol: false, source: peers, destination: peers, upstream: false });
    };
    let mut wanted = Attributes { protocol: false, source: false, destination: false, upstream: false };
    for (at, name) in names.iter().enumerate() {
        match *name {
            "protocol" => wanted.protocol = true,
            "source" => wanted.source = true,
            "destination" => wanted.destination = true,
            "upstream" => wanted.upstream = true,
            _ => {
                let message = "must be one of `protocol`, `source`, `destination`, `upstream`";
                return Err(error(&format!("attributes[{at}]"), message));
            }
        }
    }
    Ok(wanted)
}

/// Walks the document and warns of every member that `KEYS` does not name.
/// `path` is where the member is, `schema` the same with `[]` for indices.
fn find_unknown(value: &Value, path: &str, schema: &str, warnings: &mut Vec<Warning>) {
    let join = |to: &str, key: &str| if to.is_empty() { key.to_owned() } else { format!("{to}.{key}") };
    match value {
        Value::Object(map) => {
            let edits_names = matches!(schema, "skip.extensions" | "skip.content_types")
                || schema.starts_with("redact.") && KEYS.iter().any(|k| k.path == schema && k.kind == Kind::Names);
            for (key, member) in map {
                let (path, schema) = (join(path, key), join(schema, key));
                if edits_names && matches!(key.as_str(), "add" | "remove") {
                    continue;
                }
                let ignored = IGNORED.iter().find(|(known, _)| *known == schema);
                if KEYS.iter().any(|k| k.path == schema && k.kind == Kind::Headers) {
                    continue;
                }
                if KEYS.iter().any(|k| k.path == schema) {
                    find_unknown(member, &path, &schema, warnings);
                } else {
                    let message = ignored.map_or(UNKNOWN, |(_, why)| why).to_owned();
                    warnings.push(Warning { path, message });
                }
            }
        }
        Value::Array(items) => {
            let schema = format!("{schema}[]");
            for (at, item) in items.iter().enumerate() {
                find_unknown(item, &format!("{path}[{at}]"), &schema, warnings);
            }
        }
        _ => {}
    }
}
