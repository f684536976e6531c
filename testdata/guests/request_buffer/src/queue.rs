//! Requests that wait, by host, in order of their arrival. Times are given:
//! nothing here reads a clock.

use std::collections::{BTreeMap, VecDeque};

use crate::settings::Settings;

/// A request's stream, as the host numbers it.
pub type Stream = u32;

#[derive(Debug, Default)]
struct Host {
    poked_ms: u64,
    /// Each with the time it began to wait.
    waiting: VecDeque<(Stream, u64)>,
}

/// The requests of one worker thread.
#[derive(Debug, Default)]
pub struct Queue {
    hosts: BTreeMap<String, Host>,
    total: usize,
}

/// What becomes of a request for a host without a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Waits {
        /// The control plane is to be told of the host.
        poke: bool,
    },
    /// There are enough waiting.
    Refused,
}

/// Streams whose waiting is over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Over {
    /// Their hosts have backends.
    pub released: Vec<Stream>,
    /// They have waited too long.
    pub expired: Vec<Stream>,
}

impl Queue {
    pub fn admit(&mut self, host: &str, stream: Stream, now_ms: u64, settings: &Settings) -> Admission {
        let waiting = self.hosts.get(host).map_or(0, |host| host.waiting.len());
        if self.total >= settings.max_total || waiting >= settings.max_per_host {
            return Admission::Refused;
        }
        self.total += 1;
        let host = self.hosts.entry(host.to_owned()).or_default();
        host.waiting.push_back((stream, now_ms));
        // A first request pokes, later ones only if that was long ago.
        let poke = waiting == 0 || now_ms.saturating_sub(host.poked_ms) >= settings.poke_ms;
        if poke {
            host.poked_ms = now_ms;
        }
        Admission::Waits { poke }
    }

    /// Forgets a stream, wherever it waits.
    pub fn remove(&mut self, stream: Stream) {
        self.retain(|_, waiting, _| waiting != stream);
    }

    /// Takes out what need not or may not wait any longer.
    pub fn over(&mut self, now_ms: u64, max_wait_ms: u64, holds: impl Fn(&str) -> bool) -> Over {
        let mut over = Over::default();
        self.retain(|host, stream, since_ms| {
            if !holds(host) {
                over.released.push(stream);
                false
            } else if now_ms.saturating_sub(since_ms) >= max_wait_ms {
                over.expired.push(stream);
                false
            } else {
                true
            }
        });
        over
    }

    pub fn len(&self) -> usize {
        self.total
    }

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    fn retain(&mut self, mut keep: impl FnMut(&str, Stream, u64) -> bool) {
        self.hosts.retain(|name, host| {
            host.waiting.retain(|(stream, since_ms)| keep(name, *stream, *since_ms));
            !host.waiting.is_empty()
        });
        self.total = self.hosts.values().map(|host| host.waiting.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POKE: Admission = Admission::Waits { poke: true };
    const QUIET: Admission = Admission::Waits { poke: false };

    fn settings() -> Settings {
        Settings { max_per_host: 2, max_total: 3, poke_ms: 100, ..Settings::default() }
    }

    #[test]
    fn one_poke_for_many_requests() {
        let (mut queue, settings) = (Queue::default(), Settings { max_per_host: 9, max_total: 9, ..settings() });
        let told: Vec<_> = [0, 10, 99, 100, 120].map(|now| queue.admit("a", now as u32, now, &settings)).into();
        assert_eq!(told, [POKE, QUIET, QUIET, POKE, QUIET]);
        assert_eq!(queue.admit("b", 7, 120, &settings), POKE);
    }

    #[test]
    fn a_host_that_came_back_is_poked_anew() {
        let (mut queue, settings) = (Queue::default(), settings());
        assert_eq!(queue.admit("a", 1, 0, &settings), POKE);
        queue.remove(1);
        assert_eq!(queue.admit("a", 2, 1, &settings), POKE);
    }

    #[test]
    fn no_more_wait_than_may() {
        let (mut queue, settings) = (Queue::default(), settings());
        let told: Vec<_> = ["a", "a", "a", "b", "c"].map(|host| queue.admit(host, 1, 0, &settings)).into();
        assert_eq!(told, [POKE, QUIET, Admission::Refused, POKE, Admission::Refused]);
        assert_eq!(queue.len(), 3);
    }

    #[test]
    fn who_leaves_makes_room() {
        let (mut queue, settings) = (Queue::default(), settings());
        for stream in [1, 2, 3] {
            queue.admit("a", stream, 0, &settings);
        }
        queue.remove(1);
        queue.remove(9);
        assert_eq!((queue.len(), queue.admit("a", 4, 0, &settings)), (1, QUIET));
        let over = queue.over(0, 100, |_| false);
        assert_eq!((over.released, queue.is_empty()), (vec![2, 4], true));
    }

    #[test]
    fn they_go_in_order_when_their_host_is_there_or_their_time_is_up() {
        let (mut queue, settings) = (Queue::default(), Settings { max_per_host: 9, max_total: 9, ..settings() });
        for (host, stream, now) in [("a", 1, 0), ("b", 2, 0), ("a", 3, 10), ("b", 4, 90)] {
            queue.admit(host, stream, now, &settings);
        }
        let over = queue.over(100, 100, |host| host == "b");
        assert_eq!(over, Over { released: vec![1, 3], expired: vec![2] });
        assert_eq!(queue.over(189, 100, |_| true), Over::default());
        assert_eq!(queue.over(190, 100, |_| true).expired, [4]);
    }
}
