//! How exchanges survive the end of their VM. Envoy destroys a VM right after
//! `on_done`, whatever that returns, and cancels its calls; only a root that
//! stays in a living VM can drain. So a root that has a successor gives it what
//! is left, through a shared queue of the proxy.

use crate::config::WireKind;
use crate::export::Batch;
use crate::host::Host;

/// Roots of one load are configured within this time of each other, one for
/// each thread; a later one belongs to the next load.
const ONE_LOAD_NS: u64 = 300_000_000;
/// First byte of what is given: its form.
const FORM: u8 = 1;

/// This root's place in the line of roots of its plugin.
#[derive(Debug)]
pub struct Handoff {
    queue: Option<u32>,
    key: String,
    born_ns: u64,
}

impl Handoff {
    /// Announces this root: it may inherit from now on.
    pub fn join(host: &impl Host) -> Handoff {
        let name = |path: &str| host.property(&[path]).unwrap_or_default();
        let (plugin, root) = (name("plugin_name"), name("plugin_root_id"));
        let key = format!("spctl.{}.{}", String::from_utf8_lossy(&plugin), String::from_utf8_lossy(&root));
        let born_ns = host.wall_ns();
        host.set_shared_data(&key, &born_ns.to_le_bytes());
        Handoff { queue: host.register_queue(&key), key, born_ns }
    }

    /// Whether a later load of the plugin has a root to inherit.
    pub fn has_successor(&self, host: &impl Host) -> bool {
        let youngest = host.shared_data(&self.key);
        let youngest = youngest.as_deref().and_then(|bytes| bytes.first_chunk().copied()).map_or(0, u64::from_le_bytes);
        self.queue.is_some() && youngest > self.born_ns.saturating_add(ONE_LOAD_NS)
    }

    /// Gives one upload away; `false`: it could not be.
    pub fn give(&self, host: &impl Host, wire: WireKind, batch: &Batch) -> bool {
        let Some(queue) = self.queue else { return false };
        let mut message = Vec::with_capacity(18 + batch.body.len());
        message.extend_from_slice(&[FORM, tag(wire)]);
        message.extend_from_slice(&batch.exchanges.to_le_bytes());
        message.extend_from_slice(&(batch.bytes as u64).to_le_bytes());
        message.extend_from_slice(&batch.body);
        host.enqueue(queue, &message)
    }

    /// Takes one upload that a predecessor left, and whether it is in our form.
    pub fn take(&self, host: &impl Host, wire: WireKind, now_ns: u64) -> Option<(Batch, bool)> {
        let message = host.dequeue(self.queue?)?;
        let (head, rest) = message.split_first_chunk::<2>()?;
        let (exchanges, rest) = rest.split_first_chunk()?;
        let (bytes, body) = rest.split_first_chunk()?;
        let batch = Batch {
            body: body.to_vec(),
            exchanges: u64::from_le_bytes(*exchanges),
            bytes: u64::from_le_bytes(*bytes) as usize,
            queued_ns: now_ns,
        };
        Some((batch, *head == [FORM, tag(wire)]))
    }
}

fn tag(wire: WireKind) -> u8 {
    match wire {
        WireKind::Otlp => 0,
        WireKind::Softprobe => 1,
    }
}
