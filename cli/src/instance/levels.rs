//! The level of the proxy's `wasm` logger while somebody follows the log at a
//! lower one: raised for as long as the follower is there, then put back, also
//! when the follower was killed.

use std::sync::{Arc, Mutex, PoisonError};

use super::Instance;
use crate::error::Result;
use crate::logs::Level;

/// The levels that followers ask for now.
#[derive(Debug, Default)]
pub(super) struct Levels(Mutex<Vec<Level>>);

/// One follower's wish; dropping it takes it back.
pub(super) struct Held {
    instance: Arc<Instance>,
    level: Level,
}

impl Levels {
    /// The most talkative of what is asked for and what the instance was started with.
    fn wanted(&self, own: Level) -> Level {
        self.held().iter().copied().fold(own, Level::min)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Vec<Level>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    pub(super) async fn new(instance: Arc<Instance>, level: Level) -> Result<Self> {
        instance.levels.held().push(level);
        let held = Self { instance, level };
        held.instance.apply_level().await?;
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.instance.levels.held();
        if let Some(at) = held.iter().position(|level| *level == self.level) {
            held.swap_remove(at);
        }
        drop(held);
        let instance = self.instance.clone();
        // A proxy that has gone has no level to put back.
        tokio::spawn(async move { instance.apply_level().await });
    }
}

impl Instance {
    async fn apply_level(&self) -> Result<()> {
        self.harness.set_log_level(self.levels.wanted(self.spec.log_level)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_talkative_wish_counts() {
        let levels = Levels::default();
        assert_eq!(levels.wanted(Level::Info), Level::Info);
        levels.held().extend([Level::Debug, Level::Error]);
        assert_eq!(levels.wanted(Level::Info), Level::Debug);
        assert_eq!(levels.wanted(Level::Trace), Level::Trace);
    }
}
