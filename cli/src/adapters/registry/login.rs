//! Logins kept where Docker and ORAS look for them: a credential helper where
//! one is configured, else their file or the one that REGISTRY_AUTH_FILE names,
//! readable by its owner alone.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::credentials::{FILE_MAX, NOTHING, key, login_file};
use crate::error::{Error, RegistryProblem, Result};
use crate::state::{private_dir, read_small, write_private};

/// Where a login is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// By this helper.
    Helper(String),
    /// In this file, as readable as the file.
    File(PathBuf),
}

/// Keeps a login.
pub fn store(registry: &str, username: &str, password: &str) -> Result<Stored> {
    let (path, mut config) = config()?;
    let key = key(registry);
    if let Some(helper) = helper(&config, &key) {
        let login = json!({"ServerURL": key, "Username": username, "Secret": password}).to_string();
        ask(registry, &helper, "store", &login)?;
        return Ok(Stored::Helper(helper));
    }
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    let Value::Object(auths) = auths else { return Err(unusable(&path, "its `auths` is not an object")) };
    auths.insert(key, json!({"auth": STANDARD.encode(format!("{username}:{password}"))}));
    write(&path, &config)?;
    Ok(Stored::File(path))
}

/// Forgets a login; none: there was none.
pub fn forget(registry: &str) -> Result<Option<Stored>> {
    let (path, mut config) = config()?;
    let key = key(registry);
    let by_helper = match helper(&config, &key) {
        Some(helper) => {
            ask(registry, &helper, "erase", &key).map(|was_there| was_there.then_some(Stored::Helper(helper)))
        }
        None => Ok(None),
    };
    let removed = match config.get_mut("auths") {
        Some(Value::Object(auths)) => auths.remove(&key).is_some(),
        _ => false,
    };
    if removed {
        write(&path, &config)?;
    }
    Ok(by_helper?.or(removed.then_some(Stored::File(path))))
}

/// The file, through a link where it is one, and what it says.
fn config() -> Result<(PathBuf, Map<String, Value>)> {
    let path = login_file()
        .ok_or_else(|| Error::Usage("neither DOCKER_CONFIG nor HOME is set: there is no place for a login".into()))?;
    let path = std::fs::canonicalize(&path).unwrap_or(path);
    match read_small(&path, FILE_MAX) {
        Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Ok((path, Map::new())),
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(config) => Ok((path, config)),
            Err(error) => Err(unusable(&path, &error.to_string())),
        },
        Err(Error::Unreadable { source, .. }) if source.kind() == ErrorKind::NotFound => Ok((path, Map::new())),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, config: &Map<String, Value>) -> Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        private_dir(parent).map_err(|source| Error::Unwritable { path: path.to_owned(), source })?;
    }
    // Docker's own indentation.
    let mut out = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut writer = serde_json::Serializer::with_formatter(&mut out, format);
    serde::Serialize::serialize(config, &mut writer).map_err(|e| Error::Protocol(e.to_string()))?;
    out.push(b'\n');
    write_private(path, &out)
}

/// The helper for a registry: its own, else that for all.
fn helper(config: &Map<String, Value>, key: &str) -> Option<String> {
    let own = config.get("credHelpers").and_then(|helpers| helpers.get(key));
    own.or_else(|| config.get("credsStore"))?.as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// A verb of the helper protocol; the secret goes over its standard input.
/// False: the helper holds no such login.
fn ask(registry: &str, helper: &str, verb: &str, input: &str) -> Result<bool> {
    let program = format!("docker-credential-{helper}");
    let problem = RegistryProblem::Credentials;
    let failed = |cause: String| Error::Registry { reference: registry.to_owned(), problem, causes: vec![cause] };
    let io = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => failed(format!("the credential helper `{program}` is not on PATH")),
        _ => failed(format!("the credential helper `{program}` cannot be run: {error}")),
    };
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    // A helper that does not read its input fails below.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let ended = child.wait_with_output().map_err(io)?;
    if ended.status.success() {
        return Ok(true);
    }
    let said = [ended.stdout, ended.stderr].concat();
    if verb == "erase" && String::from_utf8_lossy(&said).contains(NOTHING) {
        return Ok(false);
    }
    // Its output may hold what it should have kept: only the name is told.
    Err(failed(format!("`{program} {verb}` ended with an error")))
}

fn unusable(path: &Path, why: &str) -> Error {
    let source = std::io::Error::new(ErrorKind::InvalidData, why.to_owned());
    Error::Unreadable { path: path.to_owned(), source }
}
