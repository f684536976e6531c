//! Reads a document strictly: what nobody asked for is an error with its key,
//! so that nothing a user wrote is ignored.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

/// A key and what is wrong there.
pub(super) type Refused = (String, String);
type Result<T> = std::result::Result<T, Refused>;

/// An object and where it stands.
pub(super) struct Node<'a> {
    pub(super) key: String,
    members: &'a Map<String, Value>,
    read: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Node<'a> {
    pub(super) fn new(key: String, value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(members) => Ok(Self { key, members, read: RefCell::default() }),
            _ => Err((key, "a mapping is wanted".into())),
        }
    }

    pub(super) fn at(&self, name: &str) -> String {
        if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) }
    }

    pub(super) fn refused<T>(&self, name: &str, why: impl Into<String>) -> Result<T> {
        Err((self.at(name), why.into()))
    }

    /// A member; it counts as read.
    pub(super) fn value(&self, name: &'a str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(name);
        self.members.get(name).filter(|value| !value.is_null())
    }

    /// Members that do not change what a filter sees here.
    pub(super) fn without_effect(&self, names: &[&'a str]) {
        self.read.borrow_mut().extend(names);
    }

    pub(super) fn object(&self, name: &'a str) -> Result<Option<Node<'a>>> {
        self.value(name).map(|value| Node::new(self.at(name), value)).transpose()
    }

    /// The objects of a list.
    pub(super) fn objects(&self, name: &'a str) -> Result<Vec<Node<'a>>> {
        let Some(value) = self.value(name) else { return Ok(Vec::new()) };
        let Value::Array(items) = value else { return self.refused(name, "a list is wanted") };
        items.iter().enumerate().map(|(at, item)| Node::new(format!("{}[{at}]", self.at(name)), item)).collect()
    }

    pub(super) fn text(&self, name: &'a str) -> Result<Option<&'a str>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => self.refused(name, "a string is wanted"),
        }
    }

    /// The strings of a list.
    pub(super) fn texts(&self, name: &'a str) -> Result<Vec<String>> {
        let Some(value) = self.value(name) else { return Ok(Vec::new()) };
        let texts =
            value.as_array().and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        texts.map_or_else(|| self.refused(name, "a list of strings is wanted"), Ok)
    }

    pub(super) fn flag(&self, name: &'a str) -> Result<Option<bool>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            // protobuf's wrappers in their long form
            Some(Value::Object(wrapped)) => Ok(wrapped.get("value").and_then(Value::as_bool)),
            Some(_) => self.refused(name, "true or false is wanted"),
        }
    }

    pub(super) fn number(&self, name: &'a str) -> Result<Option<u64>> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => self.refused(name, "a number is wanted"),
            },
        }
    }

    /// protobuf's JSON form: `1.5s`.
    pub(super) fn duration(&self, name: &'a str) -> Result<Option<Duration>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let seconds = text.strip_suffix('s').and_then(|number| number.parse::<f64>().ok());
        match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
            Some(duration) => Ok(Some(duration)),
            None => self.refused(name, format!("`{text}` is no duration such as `1.5s`")),
        }
    }

    /// The end of reading: refuses the first member that nobody read.
    pub(super) fn finish(self) -> Result<()> {
        let read = self.read.borrow();
        match self.members.keys().find(|name| !read.contains(name.as_str())) {
            None => Ok(()),
            Some(name) => self.refused(
                name,
                "the embedded harness does not support it; take it out, or use `--harness envoy` or `docker`",
            ),
        }
    }
}
