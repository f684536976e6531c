//! Walking a document with the path of each place, as Envoy's errors and people
//! write it: `static_resources.listeners[0].name`.

use serde_json::{Map, Value};

/// Calls `visit` for every object, parents first, with its path.
pub(super) fn each_object(value: &mut Value, visit: &mut dyn FnMut(&str, &mut Map<String, Value>)) {
    go(value, String::new(), visit);
}

fn go(value: &mut Value, path: String, visit: &mut dyn FnMut(&str, &mut Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            visit(&path, map);
            for (key, inner) in map.iter_mut() {
                go(inner, join(&path, key), visit);
            }
        }
        Value::Array(items) => {
            for (at, inner) in items.iter_mut().enumerate() {
                go(inner, format!("{path}[{at}]"), visit);
            }
        }
        _ => {}
    }
}

/// Calls `visit` for every string that is an object's member, with its key.
pub(super) fn each_string(value: &mut Value, visit: &mut dyn FnMut(&str, &mut String)) {
    each_object(value, &mut |_, map| {
        for (key, inner) in map.iter_mut() {
            if let Value::String(text) = inner {
                visit(key, text);
            }
        }
    });
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
