//! The same instance in the background: a session of its own, its output in
//! its log file, and one line back to whoever started it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};

use super::spec::Spec;
use super::status::Started;
use crate::error::{Error, Report, Result};
use crate::state::{Found, Home, write_private};

/// What the background process writes on its one line.
type Outcome = std::result::Result<Started, Report>;

/// Starts `spec` in the background and waits until it serves or says why not.
pub async fn start_detached(home: &Home, spec: &Spec) -> Result<Started> {
    let dir = home.instance(&spec.name);
    match dir.find()? {
        Found::Alive(record) => return Err(Error::AlreadyRunning { name: spec.name.clone(), harness: record.harness }),
        Found::Starting => return Err(Error::Instance { reason: format!("`{}` is still starting", spec.name) }),
        Found::Dead => dir.clean_up_dead()?,
        Found::Nothing => {}
    }
    dir.create()?;
    let json = serde_json::to_vec_pretty(spec).map_err(|e| Error::Protocol(e.to_string()))?;
    write_private(&dir.file("spec.json"), &json)?;
    let path = dir.log();
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|source| Error::Unwritable { path, source })?;
    let program = std::env::current_exe().map_err(Error::io("cannot find the running spctl"))?;
    let mut child = Command::new(program)
        .args(["__instance", "--name", &spec.name])
        .env("SPCTL_HOME", home.path())
        // mimalloc reads it at its start: commit memory as it is used, so that
        // an instance's resident memory stays flat.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(Error::io("cannot start the background process"))?;
    let stdout =
        child.stdout.take().ok_or_else(|| Error::Instance { reason: "no pipe to the background process".into() })?;
    let stdout =
        tokio::process::ChildStdout::from_std(stdout).map_err(Error::io("cannot read from the background process"))?;
    let mut line = String::new();
    let mut reader = BufReader::new(stdout);
    let read = reader.read_line(&mut line);
    let read = tokio::select! {
        read = read => read,
        _ = tokio::signal::ctrl_c() => {
            // Interrupted while starting: nothing stays behind.
            let _ = child.kill();
            let _ = child.wait();
            dir.clean_up_dead()?;
            return Err(Error::Interrupted);
        }
    };
    read.map_err(Error::io("cannot read from the background process"))?;
    match serde_json::from_str::<Outcome>(&line) {
        Ok(Ok(started)) => Ok(started),
        Ok(Err(report)) => {
            // It has removed its directory; reap it.
            let _ = child.wait();
            Err(Error::Remote(report))
        }
        Err(_) => {
            let _ = child.wait();
            let tail = last_lines(&dir.log());
            dir.clean_up_dead()?;
            Err(Error::Harness {
                harness: "background",
                reason: "the background process ended before it served".into(),
                log: tail,
            })
        }
    }
}

/// From the background process: how its start went. The pipe closes with it.
pub fn answer_parent(outcome: Result<&Started, &Error>) {
    let outcome: Outcome = outcome.cloned().map_err(Error::report);
    let line = serde_json::to_string(&outcome).unwrap_or_default();
    // A parent that has gone away does not concern a running instance.
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}

fn last_lines(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().rev().take(8).rev().map(|l| (*l).to_owned()).collect()
}
