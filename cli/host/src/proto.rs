//! As much of protobuf's wire format as properties and foreign functions need.

use crate::config::{Locality, Metadata, Node, Value};

/// A field as it is on the wire.
pub(crate) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// All fields of a message in order; none where the bytes are not a message.
pub(crate) fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = read_varint(&mut bytes)?;
        // There is no field 0, and none beyond 2^29.
        if !(8..1 << 32).contains(&tag) {
            return None;
        }
        let field = match tag & 7 {
            0 => Field::Varint(read_varint(&mut bytes)?),
            1 => {
                bytes = bytes.get(8..)?;
                Field::Fixed
            }
            2 => {
                let len = usize::try_from(read_varint(&mut bytes)?).ok()?;
                let (field, rest) = bytes.split_at_checked(len)?;
                bytes = rest;
                Field::Bytes(field)
            }
            5 => {
                bytes = bytes.get(4..)?;
                Field::Fixed
            }
            _ => return None,
        };
        out.push((tag >> 3, field));
    }
    Some(out)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn delimited(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn text(out: &mut Vec<u8>, number: u64, value: &str) {
    if !value.is_empty() {
        delimited(out, number, value.as_bytes());
    }
}

/// `google.protobuf.Value`.
fn value(of: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match of {
        Value::Null => {
            varint(&mut out, 1 << 3);
            out.push(0);
        }
        Value::Number(number) => {
            varint(&mut out, 2 << 3 | 1);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Value::String(string) => delimited(&mut out, 3, string.as_bytes()),
        Value::Bool(yes) => {
            varint(&mut out, 4 << 3);
            out.push(u8::from(*yes));
        }
        Value::Struct(members) => delimited(&mut out, 5, &structure(members)),
        Value::List(items) => {
            let mut list = Vec::new();
            items.iter().for_each(|item| delimited(&mut list, 1, &value(item)));
            delimited(&mut out, 6, &list);
        }
    }
    out
}

fn map_entry(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let mut entry = Vec::new();
    delimited(&mut entry, 1, key.as_bytes());
    delimited(&mut entry, 2, value);
    delimited(out, 1, &entry);
}

/// `google.protobuf.Struct`.
pub(crate) fn structure(members: &[(String, Value)]) -> Vec<u8> {
    let mut out = Vec::new();
    members.iter().for_each(|(key, member)| map_entry(&mut out, key, &value(member)));
    out
}

/// `envoy.config.core.v3.Metadata`.
pub(crate) fn metadata(of: &Metadata) -> Vec<u8> {
    let mut out = Vec::new();
    of.iter().for_each(|(namespace, members)| map_entry(&mut out, namespace, &structure(members)));
    out
}

/// `envoy.config.core.v3.Locality`.
pub(crate) fn locality(of: &Locality) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, &of.region);
    text(&mut out, 2, &of.zone);
    text(&mut out, 3, &of.sub_zone);
    out
}

/// `envoy.config.core.v3.Node`, as far as it is configured.
pub(crate) fn node(of: &Node) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, &of.id);
    text(&mut out, 2, &of.cluster);
    if !of.metadata.is_empty() {
        delimited(&mut out, 3, &structure(&of.metadata));
    }
    if of.locality != Locality::default() {
        delimited(&mut out, 4, &locality(&of.locality));
    }
    text(&mut out, 6, "envoy");
    out
}
