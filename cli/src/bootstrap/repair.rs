//! Envoy YAML of past years: what today's Envoy refuses, why, and the repair.
//!
//! Sources: Envoy's API v2 removal (1.18), extension lookup by type alone
//! (1.22), release notes of the fields named below.

use serde_json::{Map, Value, json};

use super::walk::{each_object, join};

/// One thing that had to change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Repair {
    /// Where, as `static_resources.listeners[0]…`.
    pub key: String,
    pub why: String,
    pub change: String,
}

pub(super) const TYPES: &str = "type.googleapis.com/";
const HCM: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
pub(super) const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
pub(super) const WASM_SERVICE: &str = "envoy.extensions.wasm.v3.WasmService";
const UPSTREAM_TLS: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// Well-known names, old ones first, and the type that belongs to them.
const EXTENSIONS: &[(&str, &str, &str)] = &[
    ("envoy.http_connection_manager", "envoy.filters.network.http_connection_manager", HCM),
    ("envoy.filters.network.http_connection_manager", "envoy.filters.network.http_connection_manager", HCM),
    ("envoy.router", "envoy.filters.http.router", ROUTER),
    ("envoy.filters.http.router", "envoy.filters.http.router", ROUTER),
    ("envoy.wasm", "envoy.filters.http.wasm", WASM),
    ("envoy.filters.http.wasm", "envoy.filters.http.wasm", WASM),
    ("envoy.bootstrap.wasm", "envoy.bootstrap.wasm", WASM_SERVICE),
];

/// Types of API v2 and of Wasm's early days, and today's.
const OLD_TYPES: &[(&str, &str)] = &[
    ("envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager", HCM),
    ("envoy.config.filter.http.router.v2.Router", ROUTER),
    ("envoy.config.filter.http.wasm.v2.Wasm", WASM),
    ("envoy.config.filter.http.wasm.v2alpha.Wasm", WASM),
    ("envoy.config.filter.http.wasm.v3.Wasm", WASM),
    ("envoy.api.v2.auth.UpstreamTlsContext", UPSTREAM_TLS),
    ("envoy.config.wasm.v2.WasmService", WASM_SERVICE),
    ("envoy.config.wasm.v3.WasmService", WASM_SERVICE),
];

/// Repairs the whole document.
pub(super) fn all(document: &mut Value) -> Vec<Repair> {
    let mut done = Vec::new();
    each_object(document, &mut |path, map| {
        let mut note = |key: &str, why: &str, change: String| {
            done.push(Repair {
                key: if key.is_empty() { path.to_owned() } else { join(path, key) },
                why: why.to_owned(),
                change,
            });
        };
        extension(map, &mut note);
        types(map, &mut note);
        cluster(map, &mut note);
        wasm(map, &mut note);
        if path == "admin" && map.remove("access_log_path").is_some() {
            note("access_log_path", "admin takes `access_log` now", "removed".into());
        }
    });
    done
}

type Note<'a> = dyn FnMut(&str, &str, String) + 'a;

/// A filter with a v2 name, a v2 `config` block, or without its type.
fn extension(map: &mut Map<String, Value>, note: &mut Note<'_>) {
    let Some(name) = map.get("name").and_then(Value::as_str).map(str::to_owned) else { return };
    let Some((_, today, kind)) = EXTENSIONS.iter().find(|(known, ..)| *known == name) else { return };
    if name != *today {
        note("name", "the v2 name was removed with API v2", format!("`{name}` -> `{today}`"));
        map.insert("name".into(), (*today).into());
    }
    if let Some(config) = map.remove("config") {
        note("config", "API v2's untyped `config` was removed", "-> `typed_config`".into());
        map.insert("typed_config".into(), config);
    }
    if map.contains_key("config_discovery") {
        return;
    }
    let typed = map.entry("typed_config").or_insert(Value::Null);
    if typed.is_null() {
        *typed = json!({});
    }
    if let Value::Object(typed) = typed
        && !typed.contains_key("@type")
    {
        note(
            "typed_config",
            "since Envoy 1.22 extensions are found by type, not by name",
            format!("`@type` {kind} added"),
        );
        // First, as people write it.
        let rest = std::mem::take(typed);
        typed.insert("@type".into(), format!("{TYPES}{kind}").into());
        typed.extend(rest);
    }
}

fn types(map: &mut Map<String, Value>, note: &mut Note<'_>) {
    for key in ["@type", "type_url"] {
        let Some(Value::String(text)) = map.get_mut(key) else { continue };
        let Some((_, today)) = OLD_TYPES.iter().find(|(old, _)| text.strip_prefix(TYPES).unwrap_or(text) == *old)
        else {
            continue;
        };
        note(key, "the type was renamed", format!("`{text}` -> `{TYPES}{today}`"));
        *text = format!("{TYPES}{today}");
    }
}

/// A cluster with v2's `hosts` or `tls_context`.
fn cluster(map: &mut Map<String, Value>, note: &mut Note<'_>) {
    let Some(name) = map.get("name").cloned() else { return };
    if let Some(Value::Array(hosts)) = map.get("hosts")
        && map.contains_key("connect_timeout")
    {
        let endpoints: Vec<Value> = hosts.iter().map(|address| json!({"endpoint": {"address": address}})).collect();
        map.remove("hosts");
        map.insert("load_assignment".into(), json!({"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}));
        note("hosts", "API v2's `hosts` was removed", "-> `load_assignment`".into());
    }
    if let Some(Value::Object(context)) = map.get("tls_context").cloned()
        && map.contains_key("connect_timeout")
    {
        map.remove("tls_context");
        let mut typed = Map::from_iter([("@type".to_owned(), Value::from(format!("{TYPES}{UPSTREAM_TLS}")))]);
        typed.extend(context);
        map.insert("transport_socket".into(), json!({"name": "envoy.transport_sockets.tls", "typed_config": typed}));
        note("tls_context", "API v2's `tls_context` was removed", "-> `transport_socket`".into());
    }
}

/// Inside a plugin's configuration: strings where an `Any` is wanted, engines
/// that release builds do not have.
fn wasm(map: &mut Map<String, Value>, note: &mut Note<'_>) {
    if !(map.contains_key("vm_config") || map.contains_key("code") && map.contains_key("runtime")) {
        return;
    }
    if let Some(configuration) = map.get_mut("configuration") {
        let text = match configuration {
            Value::String(text) => Some(text.clone()),
            Value::Object(inner) if !inner.contains_key("@type") => match inner.get("inline_string") {
                Some(Value::String(text)) => Some(text.clone()),
                _ => None,
            },
            _ => None,
        };
        if let Some(text) = text {
            *configuration = json!({"@type": format!("{TYPES}google.protobuf.StringValue"), "value": text});
            note("configuration", "a plugin's configuration is a protobuf Any", "-> `StringValue`".into());
        }
    }
    if let Some(Value::String(runtime)) = map.get_mut("runtime")
        && runtime != "envoy.wasm.runtime.v8"
        && runtime != "envoy.wasm.runtime.null"
    {
        note("runtime", "official Envoys have V8 alone", format!("`{runtime}` -> `envoy.wasm.runtime.v8`"));
        *runtime = "envoy.wasm.runtime.v8".into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(yaml: &str) -> (Value, Vec<String>) {
        let mut document: Value = serde_yaml::from_str(yaml).unwrap();
        let keys = all(&mut document).into_iter().map(|repair| repair.key).collect();
        (document, keys)
    }

    #[test]
    fn a_bare_router_gets_its_type() {
        let (document, keys) = repaired("http_filters: [{name: envoy.filters.http.router}]");
        assert_eq!(keys, ["http_filters[0].typed_config"]);
        assert_eq!(document["http_filters"][0]["typed_config"]["@type"], format!("{TYPES}{ROUTER}"));
    }

    #[test]
    fn v2_filters_and_clusters_become_v3() {
        let (document, keys) = repaired(
            "filters: [{name: envoy.http_connection_manager, config: {stat_prefix: x}}]
clusters: [{name: a, connect_timeout: 1s, hosts: [{socket_address: {address: 127.0.0.1, port_value: 80}}], tls_context: {sni: a}}]",
        );
        assert_eq!(
            keys,
            [
                "filters[0].name",
                "filters[0].config",
                "filters[0].typed_config",
                "clusters[0].hosts",
                "clusters[0].tls_context"
            ]
        );
        assert_eq!(document["filters"][0]["typed_config"]["stat_prefix"], "x");
        assert_eq!(document["clusters"][0]["transport_socket"]["typed_config"]["sni"], "a");
        let endpoint = &document["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        assert_eq!(endpoint["address"]["socket_address"]["port_value"], 80);
    }

    #[test]
    fn configurations_become_an_any() {
        let (document, keys) = repaired(
            "config: {configuration: {inline_string: hello}, vm_config: {runtime: envoy.wasm.runtime.wavm, code: {}, configuration: '{}'}}",
        );
        assert_eq!(keys, ["config.configuration", "config.vm_config.configuration", "config.vm_config.runtime"]);
        assert_eq!(document["config"]["configuration"]["value"], "hello");
    }

    #[test]
    fn what_is_right_stays() {
        let (_, keys) = repaired(
            "filters: [{name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}, {name: anything}]",
        );
        assert_eq!(keys, [""; 0]);
    }
}
