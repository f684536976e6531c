//! Recorded exchanges, found by what their requests have in common. Several
//! recordings of one request are given in their order, the last one for good.

use std::collections::{HashMap, HashSet};

use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message as _;

use super::fingerprint::{BodyKey, Fingerprint};
use crate::backend::decode;
use crate::backend::store::{Ids, StoredSpan};
use crate::error::Result;
use crate::exchange::Exchange;

/// Where a recording is.
#[derive(Debug, Clone)]
pub enum Source {
    /// In the store.
    Stored { start_ns: u64, ids: Ids },
    /// Here, encoded.
    Held(Vec<u8>),
}

#[derive(Debug, Default)]
pub struct Library {
    recordings: HashMap<(Leg, Fingerprint), Vec<Recording>>,
    sessions: HashSet<String>,
    given: HashMap<(Leg, Fingerprint, BodyKey, Option<String>), usize>,
    /// Exchanges that can be answered.
    pub exchanges: u64,
    /// Exchanges that cannot: no whole response was recorded.
    pub unusable: u64,
}

#[derive(Debug)]
struct Recording {
    session: Option<String>,
    body: BodyKey,
    source: Source,
}

/// A request passes up to two proxies and is then recorded twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Leg {
    Inbound,
    Outbound,
}

impl Leg {
    fn of(exchange: &Exchange) -> Self {
        if exchange.summary.direction == "outbound" { Self::Outbound } else { Self::Inbound }
    }

    fn other(self) -> Self {
        if self == Self::Inbound { Self::Outbound } else { Self::Inbound }
    }
}

impl Library {
    /// Adds an exchange that the store has.
    pub fn add_stored(&mut self, span: &StoredSpan) -> Result<()> {
        let exchange = decode::exchange(&decoded(&span.span)?)?;
        self.add(&exchange, Source::Stored { start_ns: span.start_ns, ids: span.ids.clone() });
        Ok(())
    }

    /// Adds an exchange that nobody else keeps.
    pub fn add_held(&mut self, span: StoredSpan) -> Result<()> {
        let exchange = decode::exchange(&decoded(&span.span)?)?;
        self.add(&exchange, Source::Held(span.span));
        Ok(())
    }

    fn add(&mut self, exchange: &Exchange, source: Source) {
        if !is_usable(exchange) {
            self.unusable += 1;
            return;
        }
        self.exchanges += 1;
        let session = exchange.summary.session_id.clone();
        self.sessions.extend(session.clone());
        let body = BodyKey::of(exchange.request.body.as_ref());
        let recording = Recording { session, body, source };
        self.recordings.entry((Leg::of(exchange), Fingerprint::of(exchange))).or_default().push(recording);
    }

    /// The recording that answers a request, and counts as given.
    pub fn take(&mut self, request: &Exchange, body: BodyKey) -> Option<Source> {
        let (leg, fingerprint) = (Leg::of(request), Fingerprint::of(request));
        let key = [leg, leg.other()]
            .map(|leg| (leg, fingerprint.clone()))
            .into_iter()
            .find(|key| self.recordings.contains_key(key))?;
        let session = request.summary.session_id.clone().filter(|session| self.sessions.contains(session));
        let fits =
            |recording: &&Recording| body.fits(recording.body) && (session.is_none() || recording.session == session);
        let recordings: Vec<&Recording> = self.recordings.get(&key)?.iter().filter(fits).collect();
        let last = recordings.len().checked_sub(1)?;
        let given = self.given.entry((key.0, key.1.clone(), body, session.clone())).or_default();
        let source = recordings.get((*given).min(last))?.source.clone();
        *given += 1;
        Some(source)
    }
}

/// Half a response would be a wrong one.
fn is_usable(exchange: &Exchange) -> bool {
    let whole = exchange.response.body.as_ref().is_none_or(|body| !body.truncated && body.omitted.is_none());
    (200..600).contains(&exchange.summary.status) && !exchange.summary.aborted && whole
}

/// The stored form of a span.
pub(super) fn decoded(span: &[u8]) -> Result<ResourceSpans> {
    ResourceSpans::decode(span).map_err(|e| crate::error::Error::Store(e.to_string()))
}
