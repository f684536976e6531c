//! A user's own bootstrap, completed with what spctl needs of it: discovery
//! from the instance's directory, an admin port, a node, the backend's cluster.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::bootstrap::DISCOVERED;

/// The listener that a user who named none is told of.
const UNNAMED: &str = "listener";

/// `clusters` are ours, rendered; a cluster of the same name stays the user's.
pub(super) fn complete(
    document: &Value,
    node: &str,
    admin: SocketAddr,
    config_dir: &Path,
    clusters: &[Value],
) -> Value {
    let mut document = document.clone();
    discovered(&mut document, &config_dir.display().to_string());
    if let Some(root) = document.as_object_mut() {
        root.entry("admin").or_insert_with(
            || json!({"address": {"socket_address": {"address": admin.ip().to_string(), "port_value": admin.port()}}}),
        );
        if let Some(given) = member(root, "node", json!({})).as_object_mut() {
            // Envoy wants both once anything is discovered.
            given.entry("id").or_insert(node.into());
            given.entry("cluster").or_insert("spctl".into());
        }
        if let Some(resources) = member(root, "static_resources", json!({})).as_object_mut() {
            resource_defaults(resources, clusters);
        }
    }
    document
}

fn resource_defaults(resources: &mut Map<String, Value>, clusters: &[Value]) {
    let listeners = member(resources, "listeners", json!([])).as_array_mut().into_iter().flatten();
    for (at, listener) in listeners.filter_map(Value::as_object_mut).enumerate() {
        listener.entry("name").or_insert(format!("{UNNAMED}_{at}").into());
        // A port that another process has must be refused, not shared with it.
        listener.entry("enable_reuse_port").or_insert(false.into());
    }
    if let Some(theirs) = member(resources, "clusters", json!([])).as_array_mut() {
        for cluster in clusters {
            if !theirs.iter().any(|other| other.get("name") == cluster.get("name")) {
                theirs.push(cluster.clone());
            }
        }
    }
}

/// Puts a Wasm service where the document names it, else behind the others.
pub(super) fn place_service(document: &mut Value, name: &str, typed_config: Value) {
    let Some(root) = document.as_object_mut() else { return };
    let Some(extensions) = member(root, "bootstrap_extensions", json!([])).as_array_mut() else { return };
    let extension = json!({"name": name, "typed_config": typed_config});
    match extensions.iter_mut().find(|other| other.get("name").and_then(Value::as_str) == Some(name)) {
        Some(place) => *place = extension,
        None => extensions.push(extension),
    }
}

/// The member of that name; `default` where it is missing or null.
fn member<'a>(map: &'a mut Map<String, Value>, name: &str, default: Value) -> &'a mut Value {
    let slot = map.entry(name).or_insert(Value::Null);
    if slot.is_null() {
        *slot = default;
    }
    slot
}

/// Name, in order, of each listener.
pub(super) fn listeners(document: &Value) -> Vec<String> {
    let list = document.pointer("/static_resources/listeners").and_then(Value::as_array);
    let named = list.into_iter().flatten().enumerate().map(|(at, listener)| {
        listener.get("name").and_then(Value::as_str).map_or_else(|| format!("{UNNAMED}_{at}"), str::to_owned)
    });
    named.collect()
}

fn discovered(value: &mut Value, directory: &str) {
    match value {
        Value::String(text) if text.starts_with(DISCOVERED) => *text = text.replacen(DISCOVERED, directory, 1),
        Value::Array(items) => items.iter_mut().for_each(|item| discovered(item, directory)),
        Value::Object(map) => map.values_mut().for_each(|item| discovered(item, directory)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_said_stays_and_the_rest_is_added() {
        let document = json!({
            "admin": {"address": "mine"},
            "static_resources": {"listeners": [{}, {"name": "b", "x": format!("{DISCOVERED}/f.yaml")}], "clusters": [{"name": "c"}]},
        });
        let ours = [json!({"name": "c", "ours": true}), json!({"name": "d"})];
        let done = complete(&document, "n", SocketAddr::from(([127, 0, 0, 1], 1)), Path::new("/dir"), &ours);
        assert_eq!(done["admin"]["address"], "mine");
        assert_eq!(done["node"]["id"], "n");
        assert_eq!(done["static_resources"]["listeners"][1]["x"], "/dir/f.yaml");
        assert_eq!(done["static_resources"]["clusters"], json!([{"name": "c"}, {"name": "d"}]));
        assert_eq!(listeners(&done), ["listener_0", "b"]);
    }
}
