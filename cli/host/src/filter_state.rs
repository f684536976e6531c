//! Values that filters leave with a stream for each other, and objects of
//! Envoy's own kinds.

use crate::status::Status;

/// What a guest stored, and whether it may be overwritten.
pub(crate) struct Stored {
    name: Vec<u8>,
    value: Option<Vec<u8>>,
    read_only: bool,
}

/// How an object of Envoy's is made of text, and how it reads back.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Flag,
    /// It does not read back.
    Silent,
}

/// Object factories of release builds, seen at work in Envoy 1.40; those that
/// take addresses are left out.
const KINDS: &[(&[u8], Kind)] = &[
    (b"envoy.string", Kind::Text),
    (b"envoy.hashable_string", Kind::Text),
    (b"envoy.tcp_proxy.cluster", Kind::Text),
    (b"envoy.network.upstream_server_name", Kind::Text),
    (b"envoy.network.upstream_subject_alt_names", Kind::Text),
    (b"envoy.network.network_namespace", Kind::Text),
    (b"envoy.upstream.dynamic_host", Kind::Text),
    (b"envoy.upstream.dynamic_port", Kind::Number),
    (b"envoy.ratelimit.hits_addend", Kind::Number),
    (b"envoy.tcp_proxy.per_connection_idle_timeout_ms", Kind::Number),
    (b"envoy.tcp_proxy.disable_tunneling", Kind::Flag),
    (b"envoy.network.application_protocols", Kind::Silent),
];

/// An object of Envoy's, for as long as its life span says.
struct Object {
    kind: &'static [u8],
    span: u64,
    /// None: it does not read back.
    shown: Option<Vec<u8>>,
}

/// Filter state of one stream. Guests' values are under `wasm.` and their name.
#[derive(Default)]
pub(crate) struct FilterState(Vec<Stored>, Vec<Object>);

impl FilterState {
    /// The value that guests set under this name (without the prefix).
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|stored| stored.name == name)?.value.as_deref()
    }

    /// What an object of Envoy's shows.
    pub(crate) fn object(&self, name: &[u8]) -> Option<&[u8]> {
        self.1.iter().find(|object| object.kind == name)?.shown.as_deref()
    }

    /// Sets an object of Envoy's (`SetEnvoyFilterStateArguments`).
    pub(crate) fn set_object(&mut self, name: &[u8], value: &[u8], span: u64) -> Result<(), Status> {
        let (name, kind) = *KINDS.iter().find(|(known, _)| *known == name).ok_or(Status::NotFound)?;
        let shown = match kind {
            Kind::Text => Some(value.to_vec()),
            Kind::Number => {
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                Some(if digits { value.to_vec() } else { return Err(Status::BadArgument) })
            }
            Kind::Flag => Some(if value == b"true" { b"true".to_vec() } else { b"false".to_vec() }),
            Kind::Silent => None,
        };
        // An unknown span is a filter chain's, which is 0.
        let span = if span > 2 { 0 } else { span };
        match self.1.iter_mut().find(|object| object.kind == name) {
            Some(object) if object.span == span => object.shown = shown,
            // Another span's stays, and nobody is told.
            Some(_) => {}
            None => self.1.push(Object { kind: name, span, shown }),
        }
        Ok(())
    }

    /// False where the value is read-only and set already; whether it is, its
    /// first writer says.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8], read_only: bool) -> bool {
        match self.0.iter_mut().find(|stored| stored.name == name) {
            Some(stored) if stored.read_only && stored.value.is_some() => false,
            Some(stored) => {
                stored.value = Some(value.to_vec());
                true
            }
            None => {
                self.0.push(Stored { name: name.to_vec(), value: Some(value.to_vec()), read_only });
                true
            }
        }
    }
}
