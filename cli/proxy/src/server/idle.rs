//! Noticing that nothing happens, with one timer that is moved only when it has
//! fired: work that goes on costs nothing.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

#[derive(Default)]
pub(super) struct IdleWatch {
    timer: Option<Pin<Box<Sleep>>>,
}

impl IdleWatch {
    /// Ready once `limit` has passed since `since`; a zero limit never does.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, since: Instant, limit: Duration) -> Poll<()> {
        if limit.is_zero() {
            return Poll::Pending;
        }
        let deadline = tokio::time::Instant::from_std(since + limit);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if deadline <= tokio::time::Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
