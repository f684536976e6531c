//! What a user's bootstrap says of node, listeners, routes and clusters for
//! plugins to read.

use serde_json::{Map, Value as Json};
use spctl_host::{Locality, Metadata, Node as Identity, Value};

use super::reader::{Node, Refused};

type Result<T> = std::result::Result<T, Refused>;

/// The bootstrap's `node`.
pub(super) fn node(node: Node<'_>) -> Result<Identity> {
    let text = |of: &Node<'_>, name| Result::Ok(of.text(name)?.unwrap_or_default().to_owned());
    let mut out = Identity { id: text(&node, "id")?, cluster: text(&node, "cluster")?, ..Identity::default() };
    if let Some(place) = node.object("locality")? {
        out.locality = Locality {
            region: place.text("region")?.unwrap_or_default().to_owned(),
            zone: place.text("zone")?.unwrap_or_default().to_owned(),
            sub_zone: place.text("sub_zone")?.unwrap_or_default().to_owned(),
        };
        place.finish()?;
    }
    if let Some(members) = node.value("metadata") {
        out.metadata = members.as_object().map(fields).map_or_else(|| node.refused("metadata", WANTED), Ok)?;
    }
    node.finish()?;
    Ok(out)
}

const WANTED: &str = "a mapping is wanted";

/// The `metadata` of a listener, route or cluster.
pub(super) fn of(node: &Node<'_>) -> Result<Metadata> {
    let Some(metadata) = node.object("metadata")? else { return Ok(Metadata::new()) };
    let Some(namespaces) = metadata.value("filter_metadata") else {
        metadata.finish()?;
        return Ok(Metadata::new());
    };
    let read = namespaces.as_object().and_then(|namespaces| {
        namespaces.iter().map(|(name, members)| Some((name.clone(), fields(members.as_object()?)))).collect()
    });
    let read = read.map_or_else(|| metadata.refused("filter_metadata", "mappings by namespace are wanted"), Ok)?;
    metadata.finish()?;
    Ok(read)
}

fn fields(members: &Map<String, Json>) -> Vec<(String, Value)> {
    members.iter().map(|(name, member)| (name.clone(), value(member))).collect()
}

/// protobuf's `Value`: a whole number is a double; Envoy's reader of YAML takes
/// any other for a string.
fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(yes) => Value::Bool(*yes),
        Json::Number(number) if number.is_f64() => Value::String(number.to_string()),
        Json::Number(number) => Value::Number(number.as_f64().unwrap_or_default()),
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(value).collect()),
        Json::Object(members) => Value::Struct(fields(members)),
    }
}
