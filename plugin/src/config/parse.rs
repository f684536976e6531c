//! From JSON to `Config`, every failure with the path of its key.

use super::keys::{IGNORED, KEYS};
use super::*;
use crate::names::NameSet;
use crate::policy::{Pattern, Rule, STATIC_CONTENT_TYPES, STATIC_EXTENSIONS, TELEMETRY_PATHS};
use crate::redact::defaults;
use serde_json::{Map, Value};

type Result<T> = std::result::Result<T, ConfigError>;

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
    let softprobe = root.choice("wire", &["otlp", "softprobe"])? == Some(1);
    let public_key = match root.string("public_key")?.filter(|key| !key.is_empty()) {
        Some(key) => Some(key),
        None => root.string("api_key")?.filter(|key| !key.is_empty()),
    };
    if let Some(key) = public_key
        && !key.bytes().all(|b| (0x21..=0x7e).contains(&b))
    {
        return Err(error("public_key", "must be printable characters without spaces"));
    }
    let (wire, auth, session, url) = match softprobe {
        true => (WireKind::Softprobe, Auth::Both, Session::Generate, "https://o.softprobe.ai"),
        false => (WireKind::Otlp, Auth::Bearer, Session::Read, "http://127.0.0.1:4318"),
    };
    Ok(Config {
        wire,
        backend: backend(root, url)?,
        public_key: public_key.map(str::to_owned),
        auth: match root.choice("auth", &["both", "x-public-key", "bearer", "none"])? {
            Some(0) => Auth::Both,
            Some(1) => Auth::PublicKey,
            Some(2) => Auth::Bearer,
            Some(_) => Auth::None,
            None => auth,
        },
        // `default-service` is how older configurations say "detect".
        service_name: root.string("service_name")?.filter(|s| !matches!(*s, "" | "default-service")).map(str::to_owned),
        direction: match root.choice("traffic_direction", &["auto", "server", "inbound", "client", "outbound"])? {
            Some(1 | 2) => Some(Direction::Inbound),
            Some(3 | 4) => Some(Direction::Outbound),
            _ => None,
        },
        policy: policy(root)?,
        redact: redactor(root, warnings)?,
        limits: limits(&root.object("limits")?)?,
        export: export(&root.object("export")?)?,
        propagation: match root.choice("propagation", &["w3c", "none"])? {
            Some(1) => Propagation::None,
            _ => Propagation::W3c,
        },
        session: match root.choice("session", &["read", "generate"])? {
            Some(0) => Session::Read,
            Some(_) => Session::Generate,
            None => session,
        },
        skip_gateways: root.bool("skip_gateways")?.unwrap_or(softprobe),
        attributes: attributes(root)?,
        log_level: Level::from_number(root.choice("log_level", &LEVELS)?.unwrap_or(0) as u32),
    })
}

fn backend(root: &Object<'_>, default: &str) -> Result<Backend> {
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
    let path = if path.ends_with("/v1/traces") { path.to_owned() } else { format!("{path}/v1/traces") };
    let authority = if port == standard { host.clone() } else { format!("{host}:{port}") };
    let cluster = match root.string("backend_cluster")? {
        Some("") => return Err(error("backend_cluster", "must not be empty")),
        Some(name) => name.to_owned(),
        None => format!("outbound|{port}||{}", host.trim_matches(['[', ']'])),
    };
    Ok(Backend { scheme, authority, host, port, path, cluster })
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

/// In the order of `Level`.
const LEVELS: [&str; 7] = ["trace", "debug", "info", "warn", "error", "critical", "off"];
const MIB: u64 = 1 << 20;
const HOUR_MS: u64 = 3_600_000;

fn limits(limits: &Object<'_>) -> Result<Limits> {
    let bytes = |key, default, min, max| Ok(limits.integer(key, min, max)?.unwrap_or(default) as usize);
    Ok(Limits {
        request_body_bytes: bytes("request_body_bytes", 64 << 10, 0, 16 * MIB)?,
        response_body_bytes: bytes("response_body_bytes", 64 << 10, 0, 16 * MIB)?,
        exchange_bytes: bytes("exchange_bytes", 512 << 10, 1024, 64 * MIB)?,
        queue_bytes: bytes("queue_bytes", 16 * MIB, 1024, 512 * MIB)?,
        batch_bytes: bytes("batch_bytes", 512 << 10, 1, 32 * MIB)?,
        batch_exchanges: bytes("batch_exchanges", 256, 1, 65_536)?,
        linger_ms: limits.integer("linger_ms", 1, 60_000)?.unwrap_or(50),
    })
}

fn export(export: &Object<'_>) -> Result<Export> {
    let retry = export.object("retry")?;
    Ok(Export {
        timeout_ms: export.integer("timeout_ms", 1, 600_000)?.unwrap_or(10_000),
        concurrency: export.integer("concurrency", 1, 16)?.unwrap_or(4) as usize,
        drain_ms: export.integer("drain_ms", 0, 600_000)?.unwrap_or(5_000),
        load: export.integer("load", 0, u64::MAX >> 11)?.unwrap_or(0),
        retry: Retry {
            initial_ms: retry.integer("initial_ms", 1, HOUR_MS)?.unwrap_or(500),
            max_ms: retry.integer("max_ms", 1, HOUR_MS)?.unwrap_or(30_000),
            max_age_ms: retry.integer("max_age_ms", 0, 24 * HOUR_MS)?.unwrap_or(300_000),
        },
    })
}

fn attributes(root: &Object<'_>) -> Result<Attributes> {
    let Some(names) = root.strings("attributes")? else {
        return Ok(Attributes { protocol: true, source: false, destination: false, upstream: false });
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

fn error(path: &str, message: impl Into<String>) -> ConfigError {
    ConfigError { path: path.to_owned(), message: message.into() }
}

/// Walks the document and warns of every member that `KEYS` does not name.
/// `path` is where the member is, `schema` the same with `[]` for indices.
fn find_unknown(value: &Value, path: &str, schema: &str, warnings: &mut Vec<Warning>) {
    let join = |to: &str, key: &str| if to.is_empty() { key.to_owned() } else { format!("{to}.{key}") };
    match value {
        Value::Object(map) => {
            let edits_names = matches!(schema, "skip.extensions" | "skip.content_types")
                || schema.starts_with("redact.") && KEYS.iter().any(|k| k.path == schema && k.kind.contains("`add`"));
            for (key, member) in map {
                let (path, schema) = (join(path, key), join(schema, key));
                if edits_names && matches!(key.as_str(), "add" | "remove") {
                    continue;
                }
                let ignored = IGNORED.iter().find(|(known, _)| *known == schema);
                if KEYS.iter().any(|k| k.path == schema) {
                    find_unknown(member, &path, &schema, warnings);
                } else {
                    let message = ignored.map_or("unknown key", |(_, why)| why).to_owned();
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

/// An object of the document and where it is; absent objects read as empty.
struct Object<'a> {
    map: Option<&'a Map<String, Value>>,
    path: String,
}

impl<'a> Object<'a> {
    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// `null` is how YAML spells a key without a value: absent.
    fn value(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|value| !value.is_null())
    }

    #[cold]
    fn wrong(&self, key: &str, kind: &str) -> ConfigError {
        error(&self.path_of(key), format!("must be {kind}"))
    }

    fn string(&self, key: &str) -> Result<Option<&'a str>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    fn integer(&self, key: &str, min: u64, max: u64) -> Result<Option<u64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_u64().filter(|n| (min..=max).contains(n)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, &format!("an integer from {min} to {max}"))),
        }
    }

    /// Index of the chosen name.
    fn choice(&self, key: &str, names: &[&str]) -> Result<Option<usize>> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        match names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            Some(at) => Ok(Some(at)),
            None => Err(self.wrong(key, &format!("one of `{}`", names.join("`, `")))),
        }
    }

    fn object(&self, key: &str) -> Result<Object<'a>> {
        let map = match self.value(key) {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(_) => return Err(self.wrong(key, "an object")),
        };
        Ok(Object { map, path: self.path_of(key) })
    }

    /// The items of an array, with their paths.
    fn items(&self, key: &str, kind: &str) -> Result<Option<Vec<(String, &'a Value)>>> {
        let list = match self.value(key) {
            None => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(self.wrong(key, kind)),
        };
        let path = self.path_of(key);
        Ok(Some(list.iter().enumerate().map(|(at, value)| (format!("{path}[{at}]"), value)).collect()))
    }

    fn objects(&self, key: &str) -> Result<Option<Vec<Object<'a>>>> {
        let Some(items) = self.items(key, "an array of objects")? else { return Ok(None) };
        let mut objects = Vec::with_capacity(items.len());
        for (path, value) in items {
            let Value::Object(map) = value else { return Err(error(&path, "must be an object")) };
            objects.push(Object { map: Some(map), path });
        }
        Ok(Some(objects))
    }

    fn strings(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        let Some(items) = self.items(key, "an array of strings")? else { return Ok(None) };
        let mut strings = Vec::with_capacity(items.len());
        for (path, value) in items {
            let Value::String(text) = value else { return Err(error(&path, "must be a string")) };
            strings.push(text.as_str());
        }
        Ok(Some(strings))
    }

    fn pattern(&self, key: &str) -> Result<Option<Pattern>> {
        match self.string(key)? {
            Some(text) => compile(text, &self.path_of(key)).map(Some),
            None => Ok(None),
        }
    }

    fn patterns(&self, key: &str) -> Result<Vec<Pattern>> {
        let mut patterns = Vec::new();
        for (at, text) in self.strings(key)?.unwrap_or_default().into_iter().enumerate() {
            patterns.push(compile(text, &format!("{}[{at}]", self.path_of(key)))?);
        }
        Ok(patterns)
    }

    /// An array replaces the default names, an object edits them.
    fn names(&self, key: &str, defaults: &[&str]) -> Result<NameSet> {
        let mut names = NameSet::new(defaults.iter().copied());
        match self.value(key) {
            Some(Value::Object(_)) => {
                let edits = self.object(key)?;
                edits.strings("remove")?.unwrap_or_default().into_iter().for_each(|name| names.remove(name));
                edits.strings("add")?.unwrap_or_default().into_iter().for_each(|name| names.insert(name));
            }
            Some(Value::Array(_)) => names = NameSet::new(self.strings(key)?.unwrap_or_default()),
            Some(_) => return Err(error(&self.path_of(key), "must be an array of names or an object")),
            None => {}
        }
        Ok(names)
    }
}

fn compile(text: &str, path: &str) -> Result<Pattern> {
    Pattern::compile(text).map_err(|why| error(path, format!("bad regular expression: {why}")))
}
