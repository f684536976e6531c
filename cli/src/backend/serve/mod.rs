//! Answers to `POST /v1/inject`: from session and case rules, then from
//! recordings, each saying where it comes from.

mod answer;
pub mod case;
mod fingerprint;
mod library;
mod rules;
mod sessions;

use std::sync::{Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, TracesData};
use serde::{Deserialize, Serialize};
use spctl_plugin::attributes::INJECT_WITHOUT_BODY;

use super::decode;
use super::store::{Filter, Store, StoredSpan};
use crate::error::Result;
use fingerprint::BodyKey;
use library::{Library, Source};
use rules::{Made, Rule, Ruling};
pub(super) use sessions::{Refused, Sessions};

/// How many exchanges are looked at in one go.
const SCAN: u32 = 500;

/// Everything that answers lookups.
#[derive(Debug, Default)]
pub struct Answers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    served: Option<Served>,
    sessions: Sessions,
}

/// The selection that `captures serve` made.
#[derive(Debug)]
struct Served {
    from: String,
    library: Library,
    rules: Vec<Rule>,
    learn: bool,
    hits: u64,
    misses: u64,
}

/// What is served, and how it goes: part of the JSON contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// `captures`, or a case's id.
    pub from: String,
    /// Exchanges that can be answered.
    pub exchanges: u64,
    /// Exchanges of the selection without a whole response.
    pub unusable: u64,
    /// Answers of the real upstream are added as they are captured.
    pub learn: bool,
    pub hits: u64,
    pub misses: u64,
}

/// The answer to a lookup.
#[derive(Debug)]
pub enum Verdict {
    Hit(TracesData),
    Miss,
}

impl Answers {
    /// Serves a selection of the store, in place of what was served before.
    pub fn serve_captures(&self, store: &Store, filter: &Filter, learn: bool) -> Result<Serving> {
        let mut library = Library::default();
        let mut after = filter.after.unwrap_or(0);
        loop {
            let (spans, last) = store.scan(&Filter { after: Some(after), limit: Some(SCAN), ..filter.clone() })?;
            for span in &spans {
                library.add_stored(span)?;
            }
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        Ok(self.serve("captures".into(), library, Vec::new(), learn))
    }

    /// Serves a case, in place of what was served before.
    pub fn serve_case(&self, case: case::Case, learn: bool) -> Serving {
        self.serve(case.id, case.library, case.rules, learn)
    }

    fn serve(&self, from: String, library: Library, rules: Vec<Rule>, learn: bool) -> Serving {
        let served = Served { from, library, rules, learn, hits: 0, misses: 0 };
        let serving = served.report();
        self.lock().served = Some(served);
        serving
    }

    /// Serves nothing any more; what was served, if anything.
    pub fn stop(&self) -> Option<Serving> {
        self.lock().served.take().map(|served| served.report())
    }

    pub fn serving(&self) -> Option<Serving> {
        self.lock().served.as_ref().map(Served::report)
    }

    /// Takes note of exchanges that were just stored.
    pub fn learn(&self, spans: &[StoredSpan]) -> Result<()> {
        let mut state = self.lock();
        if let Some(served) = state.served.as_mut().filter(|served| served.learn) {
            for span in spans {
                served.library.add_stored(span)?;
            }
        }
        Ok(())
    }

    /// Answers a lookup.
    pub fn answer(&self, store: &Store, lookup: &ResourceSpans) -> Result<Verdict> {
        let request = decode::exchange(lookup)?;
        let body = if decode::is_true(lookup, INJECT_WITHOUT_BODY) {
            BodyKey::Unseen
        } else {
            BodyKey::of(request.request.body.as_ref())
        };
        let found = self.lock().find(&request, body);
        let recorded = match found {
            None => return Ok(Verdict::Miss),
            Some(Found::Made(source, made)) => return Ok(Verdict::Hit(answer::made(&source, &made))),
            Some(Found::Recorded(Source::Held(span))) => library::decoded(&span)?,
            // What was evicted meanwhile cannot be answered any more.
            Some(Found::Recorded(Source::Stored { start_ns, ids })) => match store.get(start_ns, &ids)? {
                Some(span) => span,
                None => return Ok(Verdict::Miss),
            },
        };
        Ok(Verdict::Hit(answer::recorded(&decode::exchange(&recorded)?)))
    }

    /// The control API of Softprobe's runtime.
    pub fn sessions<T>(&self, work: impl FnOnce(&mut Sessions) -> T) -> T {
        work(&mut self.lock().sessions)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Found {
    Made(String, Made),
    Recorded(Source),
}

impl State {
    /// Rules first, then recordings, then what the policy says of a miss.
    fn find(&mut self, request: &crate::exchange::Exchange, body: BodyKey) -> Option<Found> {
        let mut none = (Vec::new(), Vec::new());
        let served = self.served.as_mut();
        let session = request.summary.session_id.as_ref().and_then(|id| self.sessions.get_mut(id));
        let (mut case_rules, mut library, mut counts) = (&mut none.0, None, None);
        if let Some(served) = served {
            (case_rules, library) = (&mut served.rules, Some(&mut served.library));
            counts = Some((&mut served.hits, &mut served.misses));
        }
        let (mut session_rules, mut policy, mut stats) = (&mut none.1, None, None);
        if let Some(session) = session {
            if let Some(case) = &mut session.case {
                (case_rules, library) = (&mut case.rules, Some(&mut case.library));
            }
            session_rules = &mut session.rules;
            policy = Some(&session.policy);
            stats = Some(&mut session.stats);
        }
        let found = match rules::decide([case_rules, session_rules], request) {
            Some((source, Ruling::Answer(made))) => Some(Found::Made(source, made)),
            Some((_, Ruling::Pass)) => None,
            None => match library.and_then(|library| library.take(request, body)) {
                Some(source) => Some(Found::Recorded(source)),
                None => policy.and_then(|policy| policy.on_miss(request)).map(|made| {
                    stats.iter_mut().for_each(|stats| stats.strict_misses += 1);
                    Found::Made("policy".into(), made)
                }),
            },
        };
        if let Some(stats) = stats {
            stats.injected_spans += u64::from(found.is_some());
        }
        if let Some((hits, misses)) = counts {
            if found.is_some() { *hits += 1 } else { *misses += 1 }
        }
        found
    }
}

impl Served {
    fn report(&self) -> Serving {
        Serving {
            from: self.from.clone(),
            exchanges: self.library.exchanges,
            unusable: self.library.unusable,
            learn: self.learn,
            hits: self.hits,
            misses: self.misses,
        }
    }
}

#[cfg(test)]
mod tests;
