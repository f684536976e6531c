//! Requests that wait for their body before the backend is asked: the root ends
//! their wait in time, since a stream has no clock of its own.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

/// The waiting requests, oldest first: all have the same deadline.
#[derive(Debug, Default)]
pub struct Waiting {
    requests: VecDeque<Request>,
    /// A body came while its headers waited: the host lets them through.
    pub bodies_come: bool,
    /// It seems that the host does not.
    pub bodies_held_back: bool,
}

#[derive(Debug)]
struct Request {
    context: u32,
    deadline_ns: u64,
    wait: Rc<BodyWait>,
}

/// What root and stream tell each other about one wait.
#[derive(Debug, Default)]
pub struct BodyWait {
    /// By the root: its time is over.
    pub expired: Cell<bool>,
    /// By the stream: a part of the body came.
    pub began: Cell<bool>,
}

impl Waiting {
    /// Adds a request.
    pub fn add(&mut self, context: u32, deadline_ns: u64) -> Rc<BodyWait> {
        let wait = Rc::new(BodyWait::default());
        self.requests.push_back(Request { context, deadline_ns, wait: wait.clone() });
        wait
    }

    /// The next request whose time is over, marked as such. Whoever stopped
    /// waiting has dropped its end.
    pub fn next_expired(&mut self, now_ns: u64) -> Option<(u32, Rc<BodyWait>)> {
        while let Some(first) = self.requests.front() {
            let waits = Rc::strong_count(&first.wait) > 1;
            if waits && first.deadline_ns > now_ns {
                return None;
            }
            let first = self.requests.pop_front()?;
            if waits {
                first.wait.expired.set(true);
                return Some((first.context, first.wait));
            }
        }
        None
    }

    /// Milliseconds until the first deadline.
    pub fn wake_in_ms(&self, now_ns: u64) -> Option<u64> {
        let first = self.requests.front()?;
        Some(first.deadline_ns.saturating_sub(now_ns).div_ceil(1_000_000).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_still_wait_expire_and_in_order() {
        let mut waiting = Waiting::default();
        let first = waiting.add(1, 100);
        let second = waiting.add(2, 200);
        let third = waiting.add(3, 300);
        assert_eq!(waiting.wake_in_ms(0), Some(1));
        drop(first);
        assert!(waiting.next_expired(150).is_none());
        let (context, _) = waiting.next_expired(250).unwrap();
        assert_eq!((context, second.expired.get(), third.expired.get()), (2, true, false));
        assert!(waiting.next_expired(250).is_none());
    }
}
