//! Span attributes as the backend itself writes them.

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

/// One attribute for each header name, `prefix` before it; a repeated one holds
/// all of its lines.
pub(super) fn headers(prefix: &str, headers: &[(String, String)]) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    for (at, (name, first)) in headers.iter().enumerate() {
        if headers.iter().take(at).any(|(earlier, _)| earlier == name) {
            continue;
        }
        let lines = headers.iter().filter(|(other, _)| other == name);
        let values: Vec<AnyValue> = lines.map(|(_, value)| any(Value::StringValue(value.clone()))).collect();
        let value = match values.len() {
            1 => Value::StringValue(first.clone()),
            _ => Value::ArrayValue(ArrayValue { values }),
        };
        attributes.push(attribute(&format!("{prefix}{name}"), value));
    }
    attributes
}

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}
