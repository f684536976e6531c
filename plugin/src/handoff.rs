//! How exchanges survive the end of their VM. Envoy destroys a VM right after
//! `on_done`, whatever that returns, and cancels its calls; only a root that
//! stays in a living VM can drain. So a root that has a successor gives it what
//! is left, through a shared queue of the proxy.

use crate::config::WireKind;
use crate::export::Batch;
use crate::host::Host;
use std::rc::Rc;

/// Where loads are not numbered: the roots of one load, one for each thread,
/// are configured within this time of each other.
const ONE_LOAD_NS: u64 = 300_000_000;
/// First byte of what is given: its form.
const FORM: u8 = 2;

/// This root's place in the line of roots of its plugin.
#[derive(Debug)]
pub struct Handoff {
    queue: Option<u32>,
    key: String,
    birth: Birth,
}

/// When a root came: by the number of its load and by the clock.
#[derive(Debug, Clone, Copy, Default)]
struct Birth {
    load: u64,
    time_ns: u64,
}

impl Birth {
    fn read(bytes: Option<&[u8]>) -> Birth {
        let Some((load, rest)) = bytes.and_then(<[u8]>::split_first_chunk) else { return Birth::default() };
        let time = rest.first_chunk().copied().unwrap_or_default();
        Birth { load: u64::from_le_bytes(*load), time_ns: u64::from_le_bytes(time) }
    }

    fn bytes(self) -> Vec<u8> {
        [self.load.to_le_bytes(), self.time_ns.to_le_bytes()].concat()
    }

    fn youngest(self, other: Birth) -> Birth {
        Birth { load: self.load.max(other.load), time_ns: self.time_ns.max(other.time_ns) }
    }

    fn is_of_later_load(self, other: Birth) -> bool {
        match (self.load, other.load) {
            (0, _) | (_, 0) => self.time_ns > other.time_ns.saturating_add(ONE_LOAD_NS),
            (ours, theirs) => ours > theirs,
        }
    }
}

impl Handoff {
    /// Announces this root: it may inherit from now on.
    pub fn join(host: &impl Host, load: u64) -> Handoff {
        let name = |path: &str| host.property(&[path]).unwrap_or_default();
        let (plugin, root) = (name("plugin_name"), name("plugin_root_id"));
        let key = format!("spctl.{}.{}", String::from_utf8_lossy(&plugin), String::from_utf8_lossy(&root));
        let birth = Birth { load, time_ns: host.wall_ns() };
        // A root of an earlier load may come late: the record only grows.
        host.change_shared_data(&key, &|before| Birth::read(before).youngest(birth).bytes());
        Handoff { queue: host.register_queue(&key), key, birth }
    }

    /// Whether a later load of the plugin has a root to inherit.
    pub fn has_successor(&self, host: &impl Host) -> bool {
        let youngest = Birth::read(host.shared_data(&self.key).as_deref());
        self.queue.is_some() && youngest.is_of_later_load(self.birth)
    }

    /// Gives one upload away; `false`: it could not be.
    pub fn give(&self, host: &impl Host, wire: WireKind, batch: &Batch) -> bool {
        let Some(queue) = self.queue else { return false };
        let key = batch.key.as_deref().unwrap_or_default();
        let mut message = Vec::with_capacity(22 + key.len() + batch.body.len());
        message.extend_from_slice(&[FORM, tag(wire)]);
        message.extend_from_slice(&batch.exchanges.to_le_bytes());
        message.extend_from_slice(&(batch.bytes as u64).to_le_bytes());
        message.extend_from_slice(&(key.len() as u32).to_le_bytes());
        message.extend_from_slice(key.as_bytes());
        message.extend_from_slice(&batch.body);
        host.enqueue(queue, &message)
    }

    /// Takes one upload that a predecessor left, and whether it is in our form.
    pub fn take(&self, host: &impl Host, wire: WireKind, now_ns: u64) -> Option<(Batch, bool)> {
        let message = host.dequeue(self.queue?)?;
        let (head, rest) = message.split_first_chunk::<2>()?;
        let (exchanges, rest) = rest.split_first_chunk()?;
        let (bytes, rest) = rest.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (key, body) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        let key = std::str::from_utf8(key).ok().filter(|key| !key.is_empty());
        let batch = Batch {
            body: body.to_vec(),
            exchanges: u64::from_le_bytes(*exchanges),
            bytes: u64::from_le_bytes(*bytes) as usize,
            queued_ns: now_ns,
            key: key.map(Rc::from),
        };
        Some((batch, *head == [FORM, tag(wire)]))
    }
}

fn tag(wire: WireKind) -> u8 {
    match wire {
        WireKind::Otlp => 0,
        WireKind::Softprobe => 1,
        WireKind::ApiClarity => 2,
        WireKind::ApiClarityV1 => 3,
    }
}
