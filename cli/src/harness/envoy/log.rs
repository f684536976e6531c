//! Envoy's stderr as log lines.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::LINE_PAUSE;
use crate::logs::{EnvoyLines, LogHub};

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
