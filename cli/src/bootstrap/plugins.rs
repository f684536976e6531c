//! The Wasm filters of a bootstrap: inline, as TypedStruct, or discovered from
//! a file. Each is taken out and its place filled with a discovery of its own,
//! so that it can be replaced while Envoy runs. Its Wasm services are taken out
//! too; of each a place that names it stays.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::repair::{TYPES, WASM, WASM_SERVICE};
use super::walk::each_object;

/// What a plugin is in a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It stands in chains and sees requests.
    #[default]
    Filter,
    /// Envoy's `WasmService`: in no chain, on every thread.
    Service,
    /// A `WasmService` with `singleton`: on the main thread alone.
    Singleton,
}

/// A Wasm filter or service as the bootstrap has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Placed {
    /// The name of its place, unique in the document.
    pub filter: String,
    pub role: Role,
    /// The plugin's own name.
    pub plugin: String,
    pub root_id: String,
    pub vm_id: String,
    pub code: Code,
    pub configuration: Vec<u8>,
    pub vm_configuration: Vec<u8>,
    pub failure_policy: String,
    pub allow_on_headers_stop_iteration: bool,
    pub environment: Vec<(String, String)>,
    /// ABI functions it may use; none: all.
    pub capabilities: Vec<String>,
}

/// Where a plugin's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    File(PathBuf),
    Inline(Vec<u8>),
    /// Fetched from a cluster, of this SHA-256.
    Remote {
        url: String,
        cluster: String,
        sha256: String,
    },
}

/// A key and what is wrong with it.
type Refused = (String, String);

/// Name in the `path` of a place, replaced by the instance's own directory.
pub const DISCOVERED: &str = "spctl:ecds";

/// Takes every Wasm HTTP filter and every Wasm service out: filters first, in
/// which order Envoy loads them.
pub(super) fn take(document: &mut Value) -> Result<Vec<Placed>, Refused> {
    let mut taken = filters(document)?;
    services(document, &mut taken)?;
    Ok(taken)
}

fn filters(document: &mut Value) -> Result<Vec<Placed>, Refused> {
    let mut taken: Vec<Placed> = Vec::new();
    let mut refused = None;
    each_object(document, &mut |path, map| {
        let Some(Value::Array(filters)) = map.get_mut("http_filters") else { return };
        for (at, filter) in filters.iter_mut().enumerate() {
            let key = format!("{path}.http_filters[{at}]");
            let config = match plugin_config(filter, &key) {
                Ok(Some(config)) => config,
                Ok(None) => continue,
                Err(error) => {
                    refused.get_or_insert(error);
                    continue;
                }
            };
            match placed(&config, Role::Filter, &key, &taken) {
                Ok(placed) => {
                    *filter = place(&placed.filter);
                    taken.push(placed);
                }
                Err(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
    });
    refused.map_or(Ok(taken), Err)
}

fn services(document: &mut Value, taken: &mut Vec<Placed>) -> Result<(), Refused> {
    let Some(Value::Array(extensions)) = document.get_mut("bootstrap_extensions") else { return Ok(()) };
    for (at, extension) in extensions.iter_mut().enumerate() {
        let key = format!("bootstrap_extensions[{at}]");
        let typed = extension.get("typed_config").unwrap_or(&Value::Null);
        let Some(message) = message(typed, WASM_SERVICE) else { continue };
        let config = config_of(message, &key)?;
        let singleton = message.get("singleton") == Some(&Value::Bool(true));
        let role = if singleton { Role::Singleton } else { Role::Service };
        let service = placed(&config, role, &key, taken)?;
        *extension = json!({"name": service.filter, "typed_config": {"@type": format!("{TYPES}{WASM_SERVICE}")}});
        taken.push(service);
    }
    Ok(())
}

/// A filter that is discovered from a file of spctl's.
fn place(name: &str) -> Value {
    json!({
        "name": name,
        "config_discovery": {
            "config_source": {
                "resource_api_version": "V3",
                "path_config_source": {
                    "path": format!("{DISCOVERED}/{name}.yaml"),
                    "watched_directory": {"path": DISCOVERED},
                },
            },
            "type_urls": [format!("type.googleapis.com/{WASM}")],
        },
    })
}

/// The `config` of a Wasm filter; none for any other filter.
fn plugin_config(filter: &Value, key: &str) -> Result<Option<Map<String, Value>>, Refused> {
    if let Some(source) =
        filter.pointer("/config_discovery/config_source/path_config_source/path").and_then(Value::as_str)
    {
        let bad = |reason: String| (format!("{key}.config_discovery"), format!("`{source}`: {reason}"));
        let text = std::fs::read(source).map_err(|e| bad(e.to_string()))?;
        let response: Value = serde_yaml::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        return wasm_config(response.pointer("/resources/0/typed_config").unwrap_or(&Value::Null), key);
    }
    wasm_config(filter.get("typed_config").unwrap_or(&Value::Null), key)
}

fn wasm_config(typed: &Value, key: &str) -> Result<Option<Map<String, Value>>, Refused> {
    message(typed, WASM).map(|message| config_of(message, key)).transpose()
}

/// The message of this type, itself or in a TypedStruct.
fn message<'a>(typed: &'a Value, wanted: &str) -> Option<&'a Value> {
    let is = |value: &Value, member: &str, kind: &str| {
        value.get(member).and_then(Value::as_str).is_some_and(|url| url.ends_with(kind))
    };
    if is(typed, "@type", wanted) {
        Some(typed)
    } else if is(typed, "@type", "TypedStruct") && is(typed, "type_url", wanted) {
        Some(typed.get("value").unwrap_or(&Value::Null))
    } else {
        None
    }
}

fn config_of(message: &Value, key: &str) -> Result<Map<String, Value>, Refused> {
    match message.get("config") {
        Some(Value::Object(config)) => Ok(config.clone()),
        _ => Err((format!("{key}.typed_config.config"), "a Wasm plugin needs one".into())),
    }
}

fn placed(config: &Map<String, Value>, role: Role, key: &str, taken: &[Placed]) -> Result<Placed, Refused> {
    let text =
        |from: &Map<String, Value>, name: &str| from.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let empty = Map::new();
    let vm = config.get("vm_config").and_then(Value::as_object).unwrap_or(&empty);
    known_only(config, &PLUGIN_KEYS, &format!("{key}.typed_config.config"))?;
    known_only(vm, &VM_KEYS, &format!("{key}.typed_config.config.vm_config"))?;
    let code = code(vm.get("code").unwrap_or(&Value::Null), &format!("{key}.typed_config.config.vm_config.code"))?;
    let plugin = name_of(&text(config, "name"), &code);
    let same = taken.iter().filter(|other| other.plugin == plugin).count();
    let open = config.get("fail_open").and_then(Value::as_bool) == Some(true);
    let policy = text(config, "failure_policy");
    let environment = vm.get("environment_variables").cloned().unwrap_or_default();
    Ok(Placed {
        filter: if same == 0 { plugin.clone() } else { format!("{plugin}-{}", same + 1) },
        role,
        plugin,
        root_id: text(config, "root_id"),
        vm_id: text(vm, "vm_id"),
        code,
        configuration: any(config.get("configuration")),
        vm_configuration: any(vm.get("configuration")),
        failure_policy: if policy.is_empty() && open { "FAIL_OPEN".into() } else { policy },
        allow_on_headers_stop_iteration: config.get("allow_on_headers_stop_iteration") == Some(&Value::Bool(true)),
        environment: variables(&environment),
        capabilities: capabilities(vm).or_else(|| capabilities(config)).unwrap_or_default(),
    })
}

/// Of `PluginConfig` and `VmConfig` (api/envoy/extensions/wasm/v3/wasm.proto);
/// another key must not be lost in silence.
const PLUGIN_KEYS: [&str; 8] = [
    "name",
    "root_id",
    "vm_config",
    "configuration",
    "fail_open",
    "failure_policy",
    "capability_restriction_config",
    "allow_on_headers_stop_iteration",
];
const VM_KEYS: [&str; 8] = [
    "vm_id",
    "runtime",
    "code",
    "configuration",
    "environment_variables",
    "capability_restriction_config",
    // Every module is compiled here, and fetched before anything starts.
    "allow_precompiled",
    "nack_on_code_cache_miss",
];

fn known_only(config: &Map<String, Value>, known: &[&str], key: &str) -> Result<(), Refused> {
    match config.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err((format!("{key}.{name}"), "spctl does not hand this on; take it out".into())),
        None => Ok(()),
    }
}

/// Of the VM, where Envoy has it since 1.40, or of the plugin.
fn capabilities(config: &Map<String, Value>) -> Option<Vec<String>> {
    let allowed = config.get("capability_restriction_config")?.get("allowed_capabilities")?.as_object()?;
    Some(allowed.keys().cloned().collect())
}

/// `key_values`, and the host's own variables that are asked for.
fn variables(environment: &Value) -> Vec<(String, String)> {
    let host = environment.get("host_env_keys").and_then(Value::as_array).into_iter().flatten();
    let host = host.filter_map(Value::as_str).filter_map(|key| Some((key.to_owned(), std::env::var(key).ok()?)));
    let given = environment.get("key_values").and_then(Value::as_object).into_iter().flatten();
    let given = given.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    host.chain(given).collect()
}

/// The plugin's name if it can be a file's name, else the file's own.
fn name_of(name: &str, code: &Code) -> String {
    let stem = match code {
        Code::File(path) => path.file_stem().map(|stem| stem.to_string_lossy().into_owned()),
        Code::Inline(_) | Code::Remote { .. } => None,
    };
    let from = if name.is_empty() { stem.unwrap_or_else(|| "plugin".into()) } else { name.to_owned() };
    let mut clean = from.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_', "-");
    clean.truncate(40);
    clean
}

fn code(code: &Value, key: &str) -> Result<Code, Refused> {
    let local = code.get("local").unwrap_or(&Value::Null);
    if let Some(path) = local.get("filename").and_then(Value::as_str) {
        return Ok(Code::File(path.into()));
    }
    if let Some(bytes) = local.get("inline_bytes").and_then(Value::as_str) {
        let bytes = STANDARD.decode(bytes).map_err(|e| (format!("{key}.local.inline_bytes"), e.to_string()))?;
        return Ok(Code::Inline(bytes));
    }
    if let Some(remote) = code.get("remote") {
        let url = remote.pointer("/http_uri/uri").and_then(Value::as_str).unwrap_or_default();
        let cluster = remote.pointer("/http_uri/cluster").and_then(Value::as_str).unwrap_or_default();
        let sha256 = remote.get("sha256").and_then(Value::as_str).unwrap_or_default();
        if url.is_empty() || cluster.is_empty() || sha256.is_empty() {
            let needed = "`http_uri.uri`, `http_uri.cluster` and `sha256` are needed";
            return Err((format!("{key}.remote"), needed.into()));
        }
        return Ok(Code::Remote { url: url.to_owned(), cluster: cluster.to_owned(), sha256: sha256.to_owned() });
    }
    Err((key.to_owned(), "neither `local.filename`, `local.inline_bytes` nor `remote` is given".into()))
}

/// What Envoy hands to a plugin of an `Any`: strings and bytes unwrapped, a
/// Struct as JSON, anything else as its bytes.
fn any(value: Option<&Value>) -> Vec<u8> {
    let Some(Value::Object(map)) = value else { return Vec::new() };
    let kind = map.get("@type").and_then(Value::as_str).unwrap_or_default();
    let inner = map.get("value").unwrap_or(&Value::Null);
    match (kind.rsplit('/').next().unwrap_or_default(), inner) {
        ("google.protobuf.StringValue", Value::String(text)) => text.clone().into_bytes(),
        ("google.protobuf.BytesValue", Value::String(text)) => STANDARD.decode(text).unwrap_or_default(),
        ("google.protobuf.Struct", inner) => {
            let inner = if inner.is_null() {
                Value::Object(
                    map.iter().filter(|(key, _)| *key != "@type").map(|(k, v)| (k.clone(), v.clone())).collect(),
                )
            } else {
                inner.clone()
            };
            serde_json::to_vec(&inner).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENER: &str = r#"
http_filters:
- name: envoy.filters.http.wasm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
    config:
      name: my filter
      root_id: root
      configuration: {"@type": type.googleapis.com/google.protobuf.StringValue, value: hello}
      vm_config: {vm_id: vm, runtime: envoy.wasm.runtime.v8, code: {local: {filename: /x/y.wasm}}}
- name: other
  typed_config:
    "@type": type.googleapis.com/udpa.type.v1.TypedStruct
    type_url: type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
    value: {config: {name: my filter, fail_open: true, vm_config: {code: {local: {inline_bytes: AGFzbQ==}}}}}
- name: envoy.filters.http.router
"#;

    #[test]
    fn finds_filters_inline_and_as_a_typed_struct() {
        let mut document: Value = serde_yaml::from_str(LISTENER).unwrap();
        let taken = take(&mut document).unwrap();
        let names: Vec<_> = taken.iter().map(|placed| (placed.filter.as_str(), placed.plugin.as_str())).collect();
        assert_eq!(names, [("my-filter", "my-filter"), ("my-filter-2", "my-filter")]);
        assert_eq!(taken[0].configuration, b"hello");
        assert_eq!(taken[1].code, Code::Inline(b"\0asm".to_vec()));
        assert_eq!(taken[1].failure_policy, "FAIL_OPEN");
        assert_eq!(document["http_filters"][1]["name"], "my-filter-2");
        assert!(document["http_filters"][1]["config_discovery"].is_object());
        assert_eq!(document["http_filters"][2]["name"], "envoy.filters.http.router");
    }

    #[test]
    fn services_leave_a_place_that_names_them() {
        let mut document: Value = serde_yaml::from_str(
            r#"
bootstrap_extensions:
- {name: envoy.bootstrap.internal_listener}
- name: envoy.bootstrap.wasm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.wasm.v3.WasmService
    singleton: true
    config: {name: my filter, vm_config: {vm_id: shared, code: {local: {filename: /x/service.wasm}}}}
"#,
        )
        .unwrap();
        let filter: Value = serde_yaml::from_str(LISTENER).unwrap();
        document.as_object_mut().unwrap().extend(filter.as_object().unwrap().clone());
        let taken = take(&mut document).unwrap();
        let roles: Vec<_> = taken.iter().map(|placed| (placed.filter.as_str(), placed.role)).collect();
        let expected = [("my-filter", Role::Filter), ("my-filter-2", Role::Filter), ("my-filter-3", Role::Singleton)];
        assert_eq!(roles, expected);
        assert_eq!(document["bootstrap_extensions"][0]["name"], "envoy.bootstrap.internal_listener");
        assert_eq!(document["bootstrap_extensions"][1]["name"], "my-filter-3");
        assert!(document["bootstrap_extensions"][1]["typed_config"]["config"].is_null());
    }

    #[test]
    fn a_filter_without_code_is_refused_by_key() {
        let mut document = json!({"http_filters": [{"typed_config": {"@type": format!("x/{WASM}"), "config": {"vm_config": {"code": {}}}}}]});
        let (key, _) = take(&mut document).unwrap_err();
        assert_eq!(key, ".http_filters[0].typed_config.config.vm_config.code");
    }
}
