//! Reads arguments out of a guest's memory, which may hold anything.

use super::shape::{Form, Part};
use super::{Cut, Field, Value};
use crate::memory::bytes;
use crate::pairs;

/// Bytes kept of one text; longest a header's value is shown.
const TEXT_MAX: usize = 512;
/// Headers kept of one map.
const HEADERS_MAX: usize = 64;
/// Entries looked at of WASI's vectors.
const VECTORS_MAX: u32 = 16;

/// What a name before it says of a value.
#[derive(Default)]
struct Named(Vec<u8>);

/// Fields of one direction: what was given (`out` false), or what came back.
pub(super) fn fields(memory: &[u8], parts: Option<&[Part]>, numbers: &[i64], out: bool) -> Vec<Field> {
    let Some(parts) = parts else { return if out { Vec::new() } else { plain(numbers) } };
    let mut named = Named::default();
    let mut numbers = numbers.iter().copied();
    let mut fields = Vec::new();
    for part in parts {
        let value = if part.out {
            result(memory, part, &mut numbers, &named)
        } else {
            argument(memory, part, &mut numbers, &mut named)
        };
        if let Some(value) = value.filter(|_| part.out == out) {
            fields.push(Field { name: part.name, value });
        }
    }
    fields
}

/// Bytes that fields take, about.
pub(super) fn weight(fields: &[Field]) -> usize {
    let of = |value: &Value| match value {
        Value::Text(cut) | Value::Path(cut) => cut.bytes.len(),
        Value::Header { name, value } => name.len() + value.bytes.len(),
        Value::Property { path, value } => path.len() + value.bytes.len(),
        Value::Headers { headers, .. } => headers.iter().map(|(name, value)| name.len() + value.bytes.len() + 64).sum(),
        Value::Number(_) | Value::Flag(_) | Value::Word(_) | Value::Size(_) | Value::Unreadable => 0,
    };
    fields.iter().map(|field| of(&field.value) + std::mem::size_of::<Field>()).sum()
}

/// Numbers that nothing is known about.
fn plain(numbers: &[i64]) -> Vec<Field> {
    const NAMES: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    NAMES.iter().zip(numbers).map(|(name, number)| Field { name, value: Value::Number(*number) }).collect()
}

/// Addresses and lengths are the guest's `u32`.
fn word(number: i64) -> u32 {
    u32::try_from(number & i64::from(u32::MAX)).unwrap_or(u32::MAX)
}

fn argument(memory: &[u8], part: &Part, numbers: &mut impl Iterator<Item = i64>, named: &mut Named) -> Option<Value> {
    let first = numbers.next()?;
    match part.form {
        Form::Hidden => return None,
        Form::Number | Form::Wide => return Some(Value::Number(first)),
        Form::Flag => return Some(Value::Flag(first != 0)),
        Form::Word(words) => return Some(of(words, first)),
        _ => {}
    }
    let second = numbers.next()?;
    if matches!(part.form, Form::Vectors) {
        return Some(vectors(memory, word(first), word(second)));
    }
    let Ok(found) = bytes(memory, word(first), word(second)) else { return Some(Value::Unreadable) };
    if matches!(part.form, Form::Text | Form::Path) {
        named.0 = cut(found).bytes;
    }
    Some(content(part.form, found, named))
}

/// What the host wrote to where the parameters point.
fn result(memory: &[u8], part: &Part, numbers: &mut impl Iterator<Item = i64>, named: &Named) -> Option<Value> {
    let first = numbers.next()?;
    let read = |at: i64| -> Option<u32> { Some(u32::from_le_bytes(bytes(memory, word(at), 4).ok()?.try_into().ok()?)) };
    match part.form {
        Form::Number => return Some(read(first).map_or(Value::Unreadable, |number| Value::Number(i64::from(number)))),
        Form::Word(words) => return Some(read(first).map_or(Value::Unreadable, |number| of(words, i64::from(number)))),
        Form::Wide => {
            let wide =
                bytes(memory, word(first), 8).ok().and_then(|bytes| Some(i64::from_le_bytes(bytes.try_into().ok()?)));
            return Some(wide.map_or(Value::Unreadable, Value::Number));
        }
        Form::Hidden => return None,
        _ => {}
    }
    let second = numbers.next()?;
    // Where a plugin asks for no result there is none.
    let (Some(at), Some(size)) = (read(first), read(second)) else { return Some(Value::Unreadable) };
    let Ok(found) = bytes(memory, at, size) else { return Some(Value::Unreadable) };
    Some(content(part.form, found, named))
}

fn of(words: &'static [&'static str], number: i64) -> Value {
    let word = usize::try_from(number).ok().and_then(|at| words.get(at));
    Value::Word(word.map_or_else(|| number.to_string().into(), |word| (*word).into()))
}

fn content(form: Form, found: &[u8], named: &Named) -> Value {
    match form {
        Form::Text => Value::Text(cut(found)),
        Form::Service if crate::proto::fields(found).is_none() => Value::Text(cut(found)),
        Form::Path => Value::Path(cut(found)),
        Form::Header => Value::Header { name: named.0.clone(), value: cut(found) },
        Form::Property => Value::Property { path: named.0.clone(), value: cut(found) },
        Form::Headers => {
            let all = pairs::parse(found);
            let headers = all.iter().take(HEADERS_MAX).map(|(name, value)| (cut(name).bytes, cut(value))).collect();
            Value::Headers { headers, count: all.len() }
        }
        _ => Value::Size(found.len()),
    }
}

fn vectors(memory: &[u8], at: u32, count: u32) -> Value {
    let mut text = Vec::new();
    let mut size = 0;
    for index in 0..count.min(VECTORS_MAX) {
        let entry = at.checked_add(index * 8).and_then(|at| bytes(memory, at, 8).ok());
        let Some(Ok(entry)) = entry.map(<[u8; 8]>::try_from) else { return Value::Unreadable };
        let [a, b, c, d, e, f, g, h] = entry;
        let Ok(part) = bytes(memory, u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])) else {
            return Value::Unreadable;
        };
        size += part.len();
        text.extend_from_slice(cut(part).bytes.get(..TEXT_MAX.saturating_sub(text.len())).unwrap_or(&cut(part).bytes));
    }
    Value::Text(Cut { bytes: text, size })
}

fn cut(bytes: &[u8]) -> Cut {
    Cut { bytes: bytes.get(..TEXT_MAX).unwrap_or(bytes).to_vec(), size: bytes.len() }
}
