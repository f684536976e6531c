//! Keeps the last lines and hands new ones to whoever follows. A slow reader
//! loses lines, is told how many, and never slows a proxy down.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use super::{Level, Line};

/// Lines kept for `logs` without `--follow`, and a follower's backlog.
const KEPT: usize = 10_000;

#[derive(Clone)]
pub struct LogHub(Arc<Inner>);

struct Inner {
    kept: Mutex<Kept>,
    live: broadcast::Sender<Line>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<Line>,
    /// Lines ever pushed.
    total: u64,
}

/// A place in the log: everything from there on is asked for later.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mark(u64);

/// What a follower receives next.
pub enum Following {
    Line(Line),
    /// It was too slow: so many lines are lost to it.
    Lost(u64),
    Ended,
}

impl Default for LogHub {
    fn default() -> Self {
        let (live, _) = broadcast::channel(KEPT);
        Self(Arc::new(Inner { kept: Mutex::default(), live }))
    }
}

impl LogHub {
    pub fn push(&self, line: Line) {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.lines.len() == KEPT {
            kept.lines.pop_front();
        }
        kept.lines.push_back(line.clone());
        kept.total += 1;
        // Under the lock, so that history and live lines neither overlap nor
        // miss one. Nobody following is fine.
        let _ = self.0.live.send(line);
    }

    /// A line of spctl itself.
    pub fn own(&self, level: Level, message: impl Into<String>) {
        let time = jiff::Timestamp::now().to_string();
        self.push(Line { time, source: "spctl".into(), level, message: message.into(), plugin: None });
    }

    /// The kept lines, and the live ones from exactly there on.
    pub fn follow(&self) -> (Vec<Line>, broadcast::Receiver<Line>) {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.lines.iter().cloned().collect(), self.0.live.subscribe())
    }

    /// Now.
    pub fn mark(&self) -> Mark {
        Mark(self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).total)
    }

    /// The lines since then that are still kept.
    pub fn since(&self, mark: Mark) -> Vec<Line> {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let new = usize::try_from(kept.total - mark.0).unwrap_or(usize::MAX).min(kept.lines.len());
        kept.lines.iter().skip(kept.lines.len() - new).cloned().collect()
    }

    /// The last lines worth quoting in an error, oldest first.
    pub fn last_problems(&self, count: usize) -> Vec<String> {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines: Vec<String> = kept
            .lines
            .iter()
            .rev()
            .filter(|line| line.level >= Level::Warning || line.plugin.is_some())
            .take(count)
            .map(|line| format!("{} {}", line.level.name(), line.message))
            .collect();
        lines.reverse();
        lines
    }
}

impl Following {
    pub async fn next(live: &mut broadcast::Receiver<Line>) -> Self {
        match live.recv().await {
            Ok(line) => Self::Line(line),
            Err(broadcast::error::RecvError::Lagged(lost)) => Self::Lost(lost),
            Err(broadcast::error::RecvError::Closed) => Self::Ended,
        }
    }
}
