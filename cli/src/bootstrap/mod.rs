//! A user's own Envoy bootstrap: read, repaired where years have passed over
//! it, its Wasm plugins found and made replaceable. Pure but for the files it
//! names; knows nothing of harnesses.

mod origin;
mod plugins;
mod repair;
mod walk;

pub use origin::{Origin, OriginTls};
pub use plugins::{Code, DISCOVERED, Placed, Role};
pub use repair::Repair;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::state::read_small;

const FILE_MAX: u64 = 16 << 20;

/// A bootstrap as read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bootstrap {
    pub path: PathBuf,
    pub document: Value,
}

/// `--map FROM=TO`: where a path of a container is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMap {
    pub from: String,
    pub to: PathBuf,
}

impl Bootstrap {
    /// Reads YAML (or JSON) and resolves the paths in it: mapped, then relative
    /// to the current directory as Envoy takes them.
    pub fn read(path: &Path, maps: &[PathMap]) -> Result<Self> {
        let unparsable = |reason: String| Error::ConfigUnparsable { place: format!("`{}`", path.display()), reason };
        let bytes = read_small(path, FILE_MAX)?;
        let mut document: Value = serde_yaml::from_slice(&bytes).map_err(|e| unparsable(e.to_string()))?;
        if !document.is_object() {
            return Err(unparsable("it is not a mapping".into()));
        }
        walk::each_string(&mut document, &mut |key, text| {
            if !matches!(key, "filename" | "path") {
                return;
            }
            for map in maps {
                if let Some(rest) = text.strip_prefix(&map.from) {
                    *text = format!("{}{rest}", map.to.display());
                }
            }
            // As Envoy takes it, from wherever it will be started.
            if key == "filename"
                && let Ok(absolute) = std::path::absolute(&text)
                && absolute.exists()
            {
                *text = absolute.display().to_string();
            }
        });
        Ok(Self { path: path.to_owned(), document })
    }

    /// What today's Envoy would refuse, each with its repair already made in
    /// the document.
    pub fn repair(&mut self) -> Vec<Repair> {
        repair::all(&mut self.document)
    }

    /// Takes the Wasm filters and services out, leaving places that name them.
    pub fn take_plugins(&mut self) -> Result<Vec<Placed>> {
        plugins::take(&mut self.document).map_err(|(key, reason)| self.refused(key, reason))
    }

    /// Where a cluster leads to; none: it is not there, or leads nowhere.
    pub fn origin(&self, cluster: &str) -> Option<Origin> {
        origin::of(&self.document, cluster)
    }

    /// Moves the first listener.
    pub fn listen(&mut self, address: SocketAddr) {
        if let Some(slot) = self.document.pointer_mut("/static_resources/listeners/0/address") {
            let (host, port) = (address.ip().to_string(), address.port());
            *slot = json!({"socket_address": {"address": host, "port_value": port}});
        }
    }

    /// Files that the document names and that are there.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        walk::each_string(&mut self.document.clone(), &mut |key, text| {
            if key == "filename" && Path::new(text).is_file() {
                files.push(PathBuf::from(text.as_str()));
            }
        });
        files
    }

    /// A module of that name where courses and builds put it: beside this file.
    pub fn near(&self, name: &OsStr) -> Option<PathBuf> {
        let beside = self.path.parent().unwrap_or(Path::new("."));
        let places = ["", "wasm", "target/wasm32-unknown-unknown/release"];
        places.map(|dir| beside.join(dir).join(name)).into_iter().find(|near| near.is_file())
    }

    /// Addresses that it listens on, each with its key.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let read = |key: String, place: Option<&Value>| {
            let socket = place?.pointer("/address/socket_address")?;
            let port = u16::try_from(socket.get("port_value")?.as_u64()?).ok()?;
            let host = socket.get("address")?.as_str()?.parse().ok()?;
            Some((key, SocketAddr::new(host, port)))
        };
        let listeners = self.document.pointer("/static_resources/listeners").and_then(Value::as_array);
        let listeners = listeners.into_iter().flatten().enumerate();
        let listeners = listeners.map(|(at, one)| read(format!("static_resources.listeners[{at}]"), Some(one)));
        let admin = read("admin".into(), self.document.get("admin"));
        listeners.chain([admin]).flatten().collect()
    }

    /// An error at a key of this file.
    pub fn refused(&self, key: String, reason: String) -> Error {
        Error::ConfigRejected { place: format!("`{}`", self.path.display()), key, reason }
    }
}

impl PathMap {
    /// `FROM=TO`.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('=') {
            Some((from, to)) if !from.is_empty() && !to.is_empty() => {
                Ok(Self { from: from.trim_end_matches('/').to_owned(), to: to.trim_end_matches('/').into() })
            }
            _ => Err("give FROM=TO, as in /etc/envoy=.".to_owned()),
        }
    }
}
