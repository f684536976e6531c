//! The JSON schema, made from the filter's own reference of its keys.

use serde_json::{Value, json};
use spctl_plugin::config::{IGNORED, KEYS, Kind};

/// JSON Schema, draft 2020-12.
pub fn schema() -> Value {
    let mut root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of the Softprobe capture filter",
        "type": "object",
        "additionalProperties": false,
        "properties": {},
    });
    for key in KEYS {
        let mut member = kind(key.kind);
        put(&mut member, "description", key.meaning.into());
        if let Some(default) = default(key.default) {
            put(&mut member, "default", default);
        }
        place(&mut root, key.path, member);
    }
    for (path, why) in IGNORED {
        place(&mut root, path, json!({"deprecated": true, "description": format!("Has no effect: {why}.")}));
    }
    root
}

fn kind(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Url => json!({"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+(/[^?#]*)?$"}),
        Kind::Regex => json!({"type": "string", "format": "regex"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Flag => json!({"enum": [true, false, "true", "false"]}),
        Kind::Integer(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Choice(names) => json!({"enum": names}),
        Kind::Set(names) => json!({"type": "array", "items": {"enum": names}}),
        Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Regexes => json!({"type": "array", "items": {"type": "string", "format": "regex"}}),
        Kind::Names => {
            let names = json!({"type": "array", "items": {"type": "string"}});
            let edits = json!({
                "type": "object",
                "additionalProperties": false,
                "properties": {"add": names, "remove": names},
            });
            json!({"anyOf": [names, edits]})
        }
        Kind::Headers => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Object => json!({"type": "object", "additionalProperties": false, "properties": {}}),
        Kind::Objects(needed) => {
            let one = |name: &&str| json!({"required": [name], "properties": {*name: {"not": {"const": []}}}});
            let any: Vec<Value> = needed.iter().map(one).collect();
            let item = json!({"type": "object", "additionalProperties": false, "properties": {}, "anyOf": any});
            json!({"type": "array", "items": item})
        }
    }
}

/// A default that is one JSON value; others are prose.
fn default(text: &str) -> Option<Value> {
    let text = text.trim_matches('`');
    serde_json::from_str(text).ok().filter(|value: &Value| !value.is_null())
}

/// Puts a member where its path says. A parent comes before its members, but
/// for objects that only have retired ones.
fn place(root: &mut Value, path: &str, member: Value) {
    let mut at = root;
    let (parents, name) = path.rsplit_once('.').map_or(("", path), |(parents, name)| (parents, name));
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        let (part, in_items) = part.strip_suffix("[]").map_or((part, false), |part| (part, true));
        let properties = at.as_object_mut().and_then(|at| at.get_mut("properties")).and_then(Value::as_object_mut);
        let Some(next) = properties.and_then(|properties| properties.get_mut(part)) else { return };
        let next = if in_items { next.get_mut("items") } else { Some(next) };
        let Some(next) = next else { return };
        at = next;
    }
    if let Some(properties) = at.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert(name.to_owned(), member);
    }
}

fn put(value: &mut Value, name: &str, member: Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert(name.to_owned(), member);
    }
}
