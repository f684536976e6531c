//! Guests of `testdata/guests`, built once by `spctl build` itself.

use std::collections::BTreeMap;
use std::sync::Mutex;

use spctl::harness::Module;

use crate::common::testdata;

/// Builds each guest when it is first asked for.
#[derive(Default)]
pub struct Guests {
    built: Mutex<BTreeMap<String, Module>>,
}

impl Guests {
    pub fn build() -> Self {
        Self::default()
    }

    pub fn module(&self, name: &str) -> Module {
        let mut built = self.built.lock().unwrap();
        built.entry(name.to_owned()).or_insert_with(|| build(name)).clone()
    }
}

fn build(name: &str) -> Module {
    let path = testdata().join("guests").join(name);
    if name.ends_with(".wat") {
        return Module::new(wat::parse_file(&path).unwrap());
    }
    match spctl::builder::build(&path, &|_| ()) {
        Ok(built) => built.module,
        Err(error) => panic!("{name}: {error}: {:?}", error.causes()),
    }
}
