//! What is running: one private directory per instance, and the lock that
//! tells a living instance from a dead one. Knows nothing of harnesses.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::adapters::docker;
use crate::error::{Error, Result};

/// The longest path a Unix socket may have (`sun_path` less its NUL, on macOS).
const SOCKET_PATH_MAX: usize = 103;

/// The directory that holds all instances (`SPCTL_HOME`, else XDG's state directory).
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

/// One instance's private directory (0700).
#[derive(Debug, Clone)]
pub struct InstanceDir {
    name: String,
    path: PathBuf,
}

/// What a running instance writes of itself once it serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub name: String,
    pub pid: u32,
    pub harness: String,
    pub socket: PathBuf,
    pub version: String,
    /// What has to be ended if the instance dies.
    #[serde(default)]
    pub children: Vec<Child>,
}

/// What an instance started beside itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Child {
    /// A process, and what its command line must hold: pids are used again.
    Process { pid: u32, marker: String },
    /// A container, by its id.
    Container { container: String },
}

/// What was found under a name.
#[derive(Debug)]
pub enum Found {
    Nothing,
    /// It holds its lock but has not written its record: still starting.
    Starting,
    Alive(Record),
    Dead,
}

impl Home {
    /// From `SPCTL_HOME`, `XDG_STATE_HOME` or `HOME`, in this order.
    pub fn locate() -> Result<Self> {
        let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let path = from("SPCTL_HOME")
            .or_else(|| from("XDG_STATE_HOME").map(|dir| dir.join("spctl")))
            .or_else(|| from("HOME").map(|dir| dir.join(".local/state/spctl")))
            .ok_or_else(|| Error::Usage("neither SPCTL_HOME nor HOME is set: there is no place for state".into()))?;
        std::path::absolute(&path).map(Self).map_err(|source| Error::StateDir { path, source })
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn instance(&self, name: &str) -> InstanceDir {
        InstanceDir { name: name.to_owned(), path: self.0.join("instances").join(name) }
    }

    /// The names under which something was started and not taken down.
    pub fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.0.join("instances")) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .filter(|e| e.path().is_dir())
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|name| is_valid_name(name))
            .collect();
        names.sort();
        names
    }

    /// Where compiled modules and carried sources are kept; safe to delete.
    pub fn cache(&self) -> PathBuf {
        self.0.join("cache")
    }
}

/// Names become directory names: letters, digits, `-` and `_`, at most 40.
pub fn is_valid_name(name: &str) -> bool {
    (1..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl InstanceDir {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn log(&self) -> PathBuf {
        self.file("instance.log")
    }

    pub fn database(&self) -> PathBuf {
        self.file("captures.db")
    }

    /// The control socket: in the directory, or under the temporary directory
    /// when the path would be too long for a socket.
    pub fn socket(&self) -> PathBuf {
        let direct = self.file("control.sock");
        if direct.as_os_str().len() <= SOCKET_PATH_MAX {
            return direct;
        }
        let digest = Sha256::digest(direct.as_os_str().as_encoded_bytes());
        std::env::temp_dir().join(format!("spctl-{}", hex(&digest[..8]))).join("control.sock")
    }

    /// Makes the directory, private to the user.
    pub fn create(&self) -> Result<()> {
        let fail = |source| Error::StateDir { path: self.path.clone(), source };
        private_dir(&self.path).map_err(fail)?;
        if let Some(parent) = self.socket().parent() {
            private_dir(parent).map_err(fail)?;
        }
        Ok(())
    }

    /// Takes the lock that says "alive"; held until the process ends.
    pub fn lock(&self) -> Result<Option<File>> {
        let path = self.file("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| Error::StateDir { path: path.clone(), source })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(e) if e == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(e) => Err(Error::StateDir { path, source: e.into() }),
        }
    }

    /// What is there now, by lock and record.
    pub fn find(&self) -> Result<Found> {
        if !self.path.is_dir() {
            return Ok(Found::Nothing);
        }
        if !self.file("lock").exists() {
            return Ok(Found::Dead);
        }
        if self.lock()?.is_some() {
            return Ok(Found::Dead);
        }
        Ok(self.record().map_or(Found::Starting, Found::Alive))
    }

    pub fn record(&self) -> Option<Record> {
        let text = fs::read(self.file("record.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub fn write_record(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_vec_pretty(record).map_err(|e| Error::Protocol(e.to_string()))?;
        write_private(&self.file("record.json"), &json)
    }

    /// Removes what an instance left; its log survives a death as `NAME.log`
    /// beside the directory, for the user to read.
    pub fn remove(&self, keep_log: bool) -> Result<()> {
        if keep_log && self.log().exists() {
            // Best effort: the log is a help, not a promise.
            let _ = fs::rename(self.log(), self.path.with_extension("log"));
        }
        let socket = self.socket();
        if !socket.starts_with(&self.path)
            && let Some(parent) = socket.parent()
        {
            let _ = fs::remove_dir_all(parent);
        }
        match fs::remove_dir_all(&self.path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(Error::StateDir { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Ends what a dead instance left running (a proxy whose supervisor was
    /// killed) and removes its directory.
    pub fn clean_up_dead(&self) -> Result<()> {
        for child in self.record().map(|r| r.children).unwrap_or_default() {
            child.end();
        }
        self.remove(true)
    }
}

impl Child {
    /// Ends it if it still is the one that was recorded.
    fn end(&self) {
        let (pid, marker) = match self {
            Self::Process { pid, marker } => (pid, marker),
            Self::Container { container } => return docker::remove_now(container),
        };
        let Ok(cmdline) = fs::read(format!("/proc/{pid}/cmdline")) else { return };
        if !String::from_utf8_lossy(&cmdline).contains(marker) {
            return;
        }
        if let Some(pid) = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended meanwhile.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Creates a directory and its parents; the last is 0700 even if it existed.
pub fn private_dir(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Writes a 0600 file whole: a reader sees the old or the new, never a half.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |source| Error::Unwritable { path: path.to_owned(), source };
    let mut partial = path.as_os_str().to_owned();
    partial.push(".tmp");
    let partial = PathBuf::from(partial);
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&partial).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.sync_data().map_err(fail)?;
    fs::rename(&partial, path).map_err(fail)
}

/// Keeps a module in the cache, where running instances find it again.
pub fn keep_module(digest: &str, bytes: &[u8], cache: &Path) -> Result<PathBuf> {
    let dir = cache.join("plugins");
    private_dir(&dir).map_err(|source| Error::StateDir { path: dir.clone(), source })?;
    let path = dir.join(format!("{digest}.wasm"));
    write_private(&path, bytes)?;
    Ok(path)
}

/// Reads a file that must be small (configurations, keys).
pub fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let fail = |source| Error::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > limit {
        return Err(fail(std::io::Error::new(ErrorKind::FileTooLarge, format!("more than {limit} bytes"))));
    }
    Ok(bytes)
}

/// Lowercase hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_living_from_the_dead_by_lock() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Home(temp.path().to_owned()).instance("a");
        assert!(matches!(dir.find().unwrap(), Found::Nothing));
        dir.create().unwrap();
        let lock = dir.lock().unwrap().unwrap();
        assert!(matches!(dir.find().unwrap(), Found::Starting));
        drop(lock);
        assert!(matches!(dir.find().unwrap(), Found::Dead));
    }

    #[test]
    fn keeps_sockets_short_enough() {
        let dir = Home(PathBuf::from("/x".repeat(90))).instance("default");
        assert!(dir.socket().as_os_str().len() <= SOCKET_PATH_MAX);
    }
}
