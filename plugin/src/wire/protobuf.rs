//! The few protobuf primitives that spans need. Lengths are computed before
//! writing, so nothing is encoded twice or moved.

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

// opentelemetry/proto/common/v1/common.proto: KeyValue and AnyValue.
const KEY: u32 = 1;
const VALUE: u32 = 2;
const ANY_STRING: u32 = 1;
const ANY_BOOL: u32 = 2;
const ANY_INT: u32 = 3;
const ANY_ARRAY: u32 = 5;
const ANY_BYTES: u32 = 7;
const ARRAY_VALUES: u32 = 1;

pub(super) fn varint_size(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
fn put_tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    put_varint(out, u64::from(field << 3 | wire_type));
}

/// Size of a length-delimited field with `size` bytes of content.
pub(super) fn field_size(field: u32, size: usize) -> usize {
    varint_size(u64::from(field << 3)) + varint_size(size as u64) + size
}

/// Starts a length-delimited field of `size` bytes.
pub(super) fn put_length(out: &mut Vec<u8>, field: u32, size: usize) {
    put_tag(out, field, LENGTH);
    put_varint(out, size as u64);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_length(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

pub(super) fn put_varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    put_tag(out, field, VARINT);
    put_varint(out, value);
}

pub(super) fn put_fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    put_tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    put_tag(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends `KeyValue`s under one field number. Array keys come in two parts,
/// prefix and name, so that nobody has to join them.
pub(super) struct Attributes<'a> {
    out: &'a mut Vec<u8>,
    field: u32,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, field: u32) -> Attributes<'a> {
        Attributes { out, field }
    }

    pub(super) fn string(&mut self, key: &str, value: &str) {
        self.named_string(key, "", value);
    }

    pub(super) fn named_string(&mut self, prefix: &str, name: &str, value: &str) {
        self.key(prefix, name, field_size(ANY_STRING, value.len()));
        put_bytes(self.out, ANY_STRING, value.as_bytes());
    }

    /// A string that comes in parts.
    pub(super) fn joined(&mut self, key: &str, parts: &[&str]) {
        let size = parts.iter().map(|part| part.len()).sum();
        self.key(key, "", field_size(ANY_STRING, size));
        put_length(self.out, ANY_STRING, size);
        parts.iter().for_each(|part| self.out.extend_from_slice(part.as_bytes()));
    }

    /// An array of one string: nearly every header.
    pub(super) fn lone_string(&mut self, prefix: &str, name: &str, value: &str) {
        let item = field_size(ANY_STRING, value.len());
        let array = field_size(ARRAY_VALUES, item);
        self.key(prefix, name, field_size(ANY_ARRAY, array));
        put_length(self.out, ANY_ARRAY, array);
        put_length(self.out, ARRAY_VALUES, item);
        put_bytes(self.out, ANY_STRING, value.as_bytes());
    }

    pub(super) fn bytes(&mut self, key: &str, value: &[u8]) {
        self.key(key, "", field_size(ANY_BYTES, value.len()));
        put_bytes(self.out, ANY_BYTES, value);
    }

    pub(super) fn int(&mut self, key: &str, value: i64) {
        self.key(key, "", 1 + varint_size(value as u64));
        put_varint_field(self.out, ANY_INT, value as u64);
    }

    pub(super) fn bool(&mut self, key: &str, value: bool) {
        self.key(key, "", 2);
        put_varint_field(self.out, ANY_BOOL, u64::from(value));
    }

    pub(super) fn strings<'v>(&mut self, prefix: &str, name: &str, values: impl Iterator<Item = &'v str> + Clone) {
        self.array(prefix, name, ANY_STRING, values.map(str::as_bytes));
    }

    pub(super) fn byte_strings<'v>(
        &mut self,
        prefix: &str,
        name: &str,
        values: impl Iterator<Item = &'v [u8]> + Clone,
    ) {
        self.array(prefix, name, ANY_BYTES, values);
    }

    fn array<'v>(&mut self, prefix: &str, name: &str, kind: u32, values: impl Iterator<Item = &'v [u8]> + Clone) {
        let item = |value: &[u8]| field_size(ARRAY_VALUES, field_size(kind, value.len()));
        let size = values.clone().map(item).sum();
        self.key(prefix, name, field_size(ANY_ARRAY, size));
        put_length(self.out, ANY_ARRAY, size);
        for value in values {
            put_length(self.out, ARRAY_VALUES, field_size(kind, value.len()));
            put_bytes(self.out, kind, value);
        }
    }

    /// Writes everything of a `KeyValue` up to the content of its `AnyValue`.
    fn key(&mut self, prefix: &str, name: &str, value_size: usize) {
        let key_size = prefix.len() + name.len();
        put_length(self.out, self.field, field_size(KEY, key_size) + field_size(VALUE, value_size));
        put_length(self.out, KEY, key_size);
        self.out.extend_from_slice(prefix.as_bytes());
        self.out.extend_from_slice(name.as_bytes());
        put_length(self.out, VALUE, value_size);
    }
}

/// One field of a message that is read.
pub(crate) enum Field<'a> {
    Varint(u32, u64),
    Bytes(u32, &'a [u8]),
    Other,
}

impl<'a> Field<'a> {
    pub(crate) fn bytes(&self, wanted: u32) -> Option<&'a [u8]> {
        match self {
            Field::Bytes(field, bytes) if *field == wanted => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn varint(&self, wanted: u32) -> Option<u64> {
        match self {
            Field::Varint(field, value) if *field == wanted => Some(*value),
            _ => None,
        }
    }
}

/// The value of an attribute, as far as anyone here reads it.
#[derive(Clone, Copy)]
pub(crate) enum AnyValue<'a> {
    String(&'a str),
    Bytes(&'a [u8]),
    Int(i64),
    /// An `ArrayValue`, encoded.
    Array(&'a [u8]),
}

impl<'a> AnyValue<'a> {
    fn read(message: &'a [u8]) -> Option<AnyValue<'a>> {
        fields(message).find_map(|field| match field {
            Field::Bytes(ANY_STRING, text) => std::str::from_utf8(text).ok().map(AnyValue::String),
            Field::Bytes(ANY_BYTES, bytes) => Some(AnyValue::Bytes(bytes)),
            Field::Bytes(ANY_ARRAY, array) => Some(AnyValue::Array(array)),
            Field::Varint(ANY_INT, number) => Some(AnyValue::Int(number as i64)),
            _ => None,
        })
    }

    /// A number, also one that is spelled out.
    pub(crate) fn int(self) -> Option<i64> {
        match self {
            AnyValue::Int(number) => Some(number),
            AnyValue::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A string, bytes, or each of an array of them.
    pub(crate) fn each_text(self, mut see: impl FnMut(&'a [u8])) {
        match self {
            AnyValue::String(text) => see(text.as_bytes()),
            AnyValue::Bytes(bytes) => see(bytes),
            AnyValue::Array(array) => {
                for value in fields(array).filter_map(|field| field.bytes(ARRAY_VALUES)).filter_map(AnyValue::read) {
                    match value {
                        AnyValue::String(text) => see(text.as_bytes()),
                        AnyValue::Bytes(bytes) => see(bytes),
                        _ => {}
                    }
                }
            }
            AnyValue::Int(_) => {}
        }
    }
}

/// Key and value of a `KeyValue`.
pub(crate) fn key_value(message: &[u8]) -> Option<(&str, AnyValue<'_>)> {
    let key = fields(message).find_map(|field| field.bytes(KEY))?;
    let value = fields(message).find_map(|field| field.bytes(VALUE))?;
    Some((std::str::from_utf8(key).ok()?, AnyValue::read(value)?))
}

/// The fields of a message, up to the first thing that is none.
pub(crate) fn fields(mut message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    std::iter::from_fn(move || {
        let tag = take_varint(&mut message)?;
        let field = u32::try_from(tag >> 3).ok()?;
        match tag as u32 & 7 {
            VARINT => Some(Field::Varint(field, take_varint(&mut message)?)),
            LENGTH => {
                let size = usize::try_from(take_varint(&mut message)?).ok()?;
                Some(Field::Bytes(field, take(&mut message, size)?))
            }
            FIXED64 => take(&mut message, 8).map(|_| Field::Other),
            FIXED32 => take(&mut message, 4).map(|_| Field::Other),
            _ => None,
        }
    })
}

fn take<'a>(message: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(size)?;
    *message = rest;
    Some(taken)
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(message, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_sizes_are_those_written() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_size(value), "{value}");
            }
        }
    }
}
