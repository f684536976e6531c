//! Envoy's stderr as log lines.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::LINE_PAUSE;
use crate::error::{Error, PluginProblem, Result};
use crate::harness::Filter;
use crate::logs::{EnvoyLines, Level, LogHub, Mark};

/// Reads to the end; a pause lets go of the line that waits for its continuation.
pub(super) async fn read(stderr: impl AsyncRead + Unpin, mut lines: EnvoyLines, logs: LogHub) {
    let mut reader = BufReader::new(stderr);
    let mut raw = Vec::new();
    loop {
        let next = tokio::time::timeout(LINE_PAUSE, reader.read_until(b'\n', &mut raw)).await;
        match next {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(_)) => {
                let text = String::from_utf8_lossy(&raw);
                let done = lines.feed(text.trim_end_matches(['\r', '\n']));
                raw.clear();
                if let Some(line) = done {
                    logs.push(line);
                }
            }
            // A partial read stays in `raw`; what is complete is let go.
            Err(_) => {
                if let Some(line) = lines.flush() {
                    logs.push(line);
                }
            }
        }
    }
    if let Some(line) = lines.flush() {
        logs.push(line);
    }
}

/// Envoy takes a filter up whose plugin it cannot load or configure, and says
/// so in its log alone: neither its config dump nor `config_reload` tells.
pub(super) async fn loaded(logs: &LogHub, since: Mark, filters: &[Filter]) -> Result<()> {
    // What was written before the proof is on its way through the pipe.
    tokio::time::sleep(LINE_PAUSE * 2).await;
    let lines = logs.since(since);
    for filter in filters {
        let told = format!("Plugin {} failed to load", filter.seen_as);
        if !lines.iter().any(|line| line.plugin.is_none() && line.message == told) {
            continue;
        }
        let quoted = lines.iter().filter(|line| line.level >= Level::Error);
        return Err(Error::Plugin {
            plugin: filter.plugin.clone(),
            problem: PluginProblem::Rejected,
            reason: "Envoy could not load it".into(),
            log: quoted.take(6).map(|line| format!("{} {}", line.level.name(), line.message)).collect(),
        });
    }
    Ok(())
}
