//! Where the filter's configuration is: alone in a file, in a WasmPlugin or
//! EnvoyFilter of Istio, in an Envoy bootstrap.

use serde::Deserialize;
use serde_json::{Map, Value};
use spctl_plugin::config::{IGNORED, KEYS};

/// A configuration, and where in the file it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Empty: the file itself.
    pub place: String,
    /// JSON.
    pub configuration: Vec<u8>,
}

/// Finds every configuration of the filter in a text, YAML or JSON.
///
/// # Errors
/// Why it is neither.
pub fn find(text: &str) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    let documents: Vec<Value> = serde_yaml::Deserializer::from_str(text)
        .map(Value::deserialize)
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let many = documents.iter().filter(|document| !document.is_null()).count() > 1;
    for (at, document) in documents.iter().enumerate() {
        let Some(members) = document.as_object() else {
            if document.is_null() {
                continue;
            }
            return Err("it holds no object".to_owned());
        };
        let is_resource = ["apiVersion", "kind", "static_resources", "staticResources", "resources"]
            .iter()
            .any(|key| members.contains_key(*key));
        let prefix = if many { format!("[{at}]") } else { String::new() };
        if is_resource {
            walk(document, &prefix, &mut found);
        } else {
            found.push(Found { place: prefix, configuration: document.to_string().into_bytes() });
        }
    }
    Ok(found)
}

/// Istio: `pluginConfig`. Envoy: `configuration` of a plugin, a `StringValue`,
/// a `Struct`, or, inside a `TypedStruct`, its bare value.
fn walk(value: &Value, place: &str, found: &mut Vec<Found>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                if matches!(name.as_str(), "pluginConfig" | "configuration")
                    && let Some(configuration) = configuration(member)
                {
                    found.push(Found { place, configuration });
                } else {
                    walk(member, &place, found);
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| walk(item, &format!("{place}[{at}]"), found));
        }
        _ => {}
    }
}

fn configuration(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => is_ours(&serde_json::from_str(text).ok()?).then(|| text.clone().into_bytes()),
        Value::Object(members) => match members.get("value").filter(|_| members.contains_key("@type")) {
            Some(inner) => configuration(inner),
            None => is_ours(value).then(|| value.to_string().into_bytes()),
        },
        _ => None,
    }
}

/// Whether any key is one that only this filter knows.
fn is_ours(value: &Value) -> bool {
    let known = |members: &Map<String, Value>| {
        let paths = KEYS.iter().map(|key| key.path).chain(IGNORED.iter().map(|(path, _)| *path));
        paths.into_iter().any(|path| members.contains_key(path))
    };
    value.as_object().is_some_and(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<String> {
        find(text).unwrap().into_iter().map(|found| found.place).collect()
    }

    #[test]
    fn a_file_may_be_the_configuration_itself() {
        assert_eq!(places("{\"public_key\": \"k\"}"), [""]);
        assert_eq!(places("typo: 1"), [""]);
        assert!(find("- a").is_err() && find("{").is_err());
    }

    #[test]
    fn finds_it_in_what_istio_and_envoy_take() {
        let plugin = "kind: WasmPlugin\nspec:\n  pluginConfig:\n    wire: otlp\n---\nkind: Service\nspec: {}\n";
        assert_eq!(places(plugin), ["[0].spec.pluginConfig"]);
        let filter = r#"{"kind": "EnvoyFilter", "spec": {"configPatches": [{"patch": {"value": {"typed_config": {
            "value": {"config": {"configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": "{\"service_name\": \"x\"}"}}}}}}}]}}"#;
        assert_eq!(places(filter), ["spec.configPatches[0].patch.value.typed_config.value.config.configuration"]);
        let bootstrap = "static_resources: {x: {config: {configuration: {'@type': s, value: {log_level: warn}}}}}";
        assert_eq!(places(bootstrap), ["static_resources.x.config.configuration"]);
        let other = "static_resources: {x: {config: {configuration: {'@type': s, value: '{\"mine\": 1}'}}}}";
        assert_eq!(places(other), [""; 0]);
    }
}
