//! Guests of `testdata/guests`, each built when it is first asked for: Rust and
//! Go by `spctl build` itself, text by the assembler.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use spctl::harness::Module;

use super::format::Plugin;
use crate::common::testdata;

#[derive(Default)]
pub struct Guests {
    built: Mutex<BTreeMap<String, Module>>,
}

impl Guests {
    pub fn of(&self, plugin: &Plugin) -> Module {
        match &plugin.wat {
            Some(text) => Module::new(wat::parse_str(text).unwrap_or_else(|e| panic!("{e}"))),
            None => self.module(&plugin.guest),
        }
    }

    pub fn module(&self, name: &str) -> Module {
        let mut built = self.built.lock().unwrap();
        built.entry(name.to_owned()).or_insert_with(|| build(name)).clone()
    }
}

/// The guest is written in Go and there is no Go here.
pub fn lacks_go(plugin: &Plugin) -> bool {
    plugin.wat.is_none() && source(&plugin.guest).join("go.mod").exists() && spctl::toolchain::on_path("go").is_none()
}

fn source(name: &str) -> PathBuf {
    testdata().join("guests").join(name)
}

fn build(name: &str) -> Module {
    let path = source(name);
    if name.ends_with(".wat") {
        return Module::new(wat::parse_file(&path).unwrap());
    }
    match spctl::builder::build(&path, &|_| ()) {
        Ok(built) => built.module,
        Err(error) => panic!("{name}: {error}: {:?}", error.causes()),
    }
}
