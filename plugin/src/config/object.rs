//! Typed reading of JSON members, every failure with the path of its key.

use super::ConfigError;
use super::keys::{KEYS, Kind};
use crate::names::NameSet;
use crate::policy::Pattern;
use serde_json::{Map, Value};

pub(super) type Result<T> = std::result::Result<T, ConfigError>;

pub(super) fn error(path: &str, message: impl Into<String>) -> ConfigError {
    ConfigError { path: path.to_owned(), message: message.into() }
}

/// An object of the document and where it is; absent objects read as empty.
pub(super) struct Object<'a> {
    pub(super) map: Option<&'a Map<String, Value>>,
    pub(super) path: String,
}

impl<'a> Object<'a> {
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// `null` is how YAML spells a key without a value: absent.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|value| !value.is_null())
    }

    #[cold]
    pub(super) fn wrong(&self, key: &str, kind: &str) -> ConfigError {
        error(&self.path_of(key), format!("must be {kind}"))
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    pub(super) fn kind_of(&self, key: &str) -> Option<Kind> {
        let path = self.path_of(key);
        KEYS.iter().find(|known| known.path == path).map(|known| known.kind)
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let Some(Kind::Integer(min, max)) = self.kind_of(key) else { return Ok(None) };
        match value.as_u64().filter(|n| (min..=max).contains(n)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, &format!("an integer from {min} to {max}"))),
        }
    }

    /// Index of the chosen name, in the order of the key's `Kind`.
    pub(super) fn choice(&self, key: &str) -> Result<Option<usize>> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        let Some(Kind::Choice(names)) = self.kind_of(key) else { return Ok(None) };
        match names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            Some(at) => Ok(Some(at)),
            None => Err(self.wrong(key, &format!("one of `{}`", names.join("`, `")))),
        }
    }

    pub(super) fn object(&self, key: &str) -> Result<Object<'a>> {
        let map = match self.value(key) {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(_) => return Err(self.wrong(key, "an object")),
        };
        Ok(Object { map, path: self.path_of(key) })
    }

    /// The items of an array, with their paths.
    pub(super) fn items(&self, key: &str, kind: &str) -> Result<Option<Vec<(String, &'a Value)>>> {
        let list = match self.value(key) {
            None => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(self.wrong(key, kind)),
        };
        let path = self.path_of(key);
        Ok(Some(list.iter().enumerate().map(|(at, value)| (format!("{path}[{at}]"), value)).collect()))
    }

    pub(super) fn objects(&self, key: &str) -> Result<Option<Vec<Object<'a>>>> {
        let Some(items) = self.items(key, "an array of objects")? else { return Ok(None) };
        let mut objects = Vec::with_capacity(items.len());
        for (path, value) in items {
            let Value::Object(map) = value else { return Err(error(&path, "must be an object")) };
            objects.push(Object { map: Some(map), path });
        }
        Ok(Some(objects))
    }

    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        let Some(items) = self.items(key, "an array of strings")? else { return Ok(None) };
        let mut strings = Vec::with_capacity(items.len());
        for (path, value) in items {
            let Value::String(text) = value else { return Err(error(&path, "must be a string")) };
            strings.push(text.as_str());
        }
        Ok(Some(strings))
    }

    pub(super) fn pattern(&self, key: &str) -> Result<Option<Pattern>> {
        match self.string(key)? {
            Some(text) => compile(text, &self.path_of(key)).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn patterns(&self, key: &str) -> Result<Vec<Pattern>> {
        let mut patterns = Vec::new();
        for (at, text) in self.strings(key)?.unwrap_or_default().into_iter().enumerate() {
            patterns.push(compile(text, &format!("{}[{at}]", self.path_of(key)))?);
        }
        Ok(patterns)
    }

    /// An array replaces the default names, an object edits them.
    pub(super) fn names(&self, key: &str, defaults: &[&str]) -> Result<NameSet> {
        let mut names = NameSet::new(defaults.iter().copied());
        match self.value(key) {
            Some(Value::Object(_)) => {
                let edits = self.object(key)?;
                edits.strings("remove")?.unwrap_or_default().into_iter().for_each(|name| names.remove(name));
                edits.strings("add")?.unwrap_or_default().into_iter().for_each(|name| names.insert(name));
            }
            Some(Value::Array(_)) => names = NameSet::new(self.strings(key)?.unwrap_or_default()),
            Some(_) => return Err(error(&self.path_of(key), "must be an array of names or an object")),
            None => {}
        }
        Ok(names)
    }
}

fn compile(text: &str, path: &str) -> Result<Pattern> {
    Pattern::compile(text).map_err(|why| error(path, format!("bad regular expression: {why}")))
}
