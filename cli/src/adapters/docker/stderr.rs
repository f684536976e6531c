//! A container's stderr, taken up where it was left when the daemon was away
//! for a moment and its containers lived on (live-restore).

use std::time::Duration;

use bollard::errors::Error as ApiError;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream};

use super::Docker;

/// How soon a daemon that has gone is looked for again.
const RETRY: Duration = Duration::from_millis(200);

impl Docker {
    /// Its stderr from the beginning, each line once; ends with the container.
    pub fn stderr(&self, id: &str) -> impl AsyncRead + Unpin + use<> {
        let (mut write, read) = tokio::io::duplex(64 << 10);
        let (docker, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            let mut seen = Seen::default();
            while docker.read_stderr(&id, &mut seen, true, &mut write).await.is_ok() {
                let running = |found: ContainerInspectResponse| found.state.and_then(|state| state.running);
                match docker.api.inspect_container(&id, None).await.map(running) {
                    Ok(Some(true)) => {}
                    Ok(_) => {
                        // What it wrote while nobody listened.
                        let _ = docker.read_stderr(&id, &mut seen, false, &mut write).await;
                        return;
                    }
                    Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => return,
                    Err(_) => {}
                }
                tokio::time::sleep(RETRY).await;
            }
        });
        read
    }

    /// Until the daemon ends the answer, however it does; an error is the
    /// reader's, who has gone.
    async fn read_stderr(&self, id: &str, seen: &mut Seen, follow: bool, to: &mut DuplexStream) -> std::io::Result<()> {
        let options =
            LogsOptionsBuilder::new().follow(follow).stderr(true).timestamps(true).since(seen.since()).build();
        seen.resume();
        let mut output = std::pin::pin!(self.api.logs(id, Some(options)));
        while let Some(Ok(part)) = output.next().await {
            if let Some(text) = seen.new_part(part.as_ref()) {
                to.write_all(text).await?;
            }
        }
        Ok(())
    }
}

/// What has been read, by the time that the daemon put before each part.
#[derive(Default)]
struct Seen {
    last: Option<Timestamp>,
    /// Parts of exactly that time.
    count: usize,
    /// Of these, how many are still to come again.
    again: Option<usize>,
}

impl Seen {
    /// From when on to ask; whole seconds are all that can be asked for.
    fn since(&self) -> i32 {
        self.last.map_or(0, |last| i32::try_from(last.as_second()).unwrap_or(i32::MAX))
    }

    fn resume(&mut self) {
        self.again = self.last.map(|_| self.count);
    }

    /// The part without its time, unless it was read before.
    fn new_part<'a>(&mut self, part: &'a [u8]) -> Option<&'a [u8]> {
        let Some((time, text)) = divided(part) else { return Some(part) };
        if let (Some(again), Some(last)) = (self.again, self.last) {
            if time < last {
                return None;
            }
            if time == last && again > 0 {
                self.again = Some(again - 1);
                return None;
            }
            // From here on all is new, also where a clock was set back.
            self.again = None;
        }
        self.count = if self.last == Some(time) { self.count + 1 } else { 1 };
        self.last = Some(time);
        Some(text)
    }
}

fn divided(part: &[u8]) -> Option<(Timestamp, &[u8])> {
    let space = part.iter().position(|byte| *byte == b' ')?;
    let time = std::str::from_utf8(part.get(..space)?).ok()?.parse().ok()?;
    Some((time, part.get(space + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(seen: &mut Seen, parts: &[&'a str]) -> Vec<&'a str> {
        let new = parts.iter().filter_map(|part| seen.new_part(part.as_bytes()));
        new.map(|text| std::str::from_utf8(text).unwrap()).collect()
    }

    const A: &str = "2026-01-01T00:00:01.000000001Z a";
    const B: &str = "2026-01-01T00:00:01.000000002Z b";
    const C: &str = "2026-01-01T00:00:01.000000002Z c";
    const D: &str = "2026-01-01T00:00:01.000000002Z d";
    const E: &str = "2026-01-01T00:00:03.000000000Z e";

    #[test]
    fn what_comes_again_is_told_once_and_what_is_new_at_the_same_time_too() {
        let mut seen = Seen::default();
        assert_eq!(seen.since(), 0);
        seen.resume();
        assert_eq!(read(&mut seen, &[A, B, C]), ["a", "b", "c"]);
        assert_eq!(seen.since(), 1_767_225_601);
        seen.resume();
        assert_eq!(read(&mut seen, &[A, B, C, D, E]), ["d", "e"]);
        seen.resume();
        assert_eq!(read(&mut seen, &[E]), [""; 0]);
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut seen = Seen::default();
        seen.resume();
        assert_eq!(read(&mut seen, &[E, A, B]), ["e", "a", "b"]);
    }

    #[test]
    fn a_part_without_a_time_passes() {
        assert_eq!(read(&mut Seen::default(), &["no time", "x"]), ["no time", "x"]);
    }
}
