//! Exchanges in SQLite: one transaction a batch, each span once, bounded by
//! count and bytes with the oldest dropped and counted.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use crate::error::{Error, Result};
use crate::exchange::Summary;

/// Bounds of the database.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub exchanges: u64,
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        // A day of a busy laptop, and less than people would notice on disk.
        Self { exchanges: 500_000, bytes: 2 << 30 }
    }
}

/// A span ready to be stored: its summary for lists, itself for everything else.
pub struct StoredSpan {
    pub summary: Summary,
    pub ids: Ids,
    pub start_ns: u64,
    /// The one span with its resource, encoded.
    pub span: Vec<u8>,
}

/// What tells one span from all others.
#[derive(Debug, Clone)]
pub struct Ids {
    pub trace: Vec<u8>,
    pub span: Vec<u8>,
}

/// What the database holds and what it let go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Distinct exchanges ever accepted.
    pub stored: u64,
    /// Of these, the oldest that the bounds pushed out.
    pub evicted: u64,
    /// Spans that came more than once (an export was tried again).
    pub repeated: u64,
    pub bytes: u64,
}

/// Which exchanges a list is about.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Filter {
    pub method: Option<String>,
    pub status: Option<u16>,
    pub direction: Option<String>,
    pub session: Option<String>,
    pub trace: Option<String>,
    /// Part of the URL.
    pub url: Option<String>,
    /// Only exchanges after this sequence number.
    pub after: Option<i64>,
    /// Only exchanges before this sequence number (`next` of an earlier page).
    pub before: Option<i64>,
    pub limit: Option<u32>,
}

/// A page of a list, newest first unless asked from `after`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Page {
    pub exchanges: Vec<Summary>,
    /// Sequence number to go on from; none: that was all.
    pub next: Option<i64>,
}

/// The database of one instance.
pub struct Store {
    bounds: Bounds,
    write: Mutex<Writer>,
    read: Mutex<Connection>,
}

struct Writer {
    connection: Connection,
    counts: Counts,
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS exchanges (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  start_ns INTEGER NOT NULL,
  span_id BLOB NOT NULL,
  trace_id BLOB NOT NULL,
  direction TEXT NOT NULL,
  method TEXT NOT NULL,
  url TEXT NOT NULL,
  status INTEGER NOT NULL,
  session TEXT,
  size INTEGER NOT NULL,
  summary TEXT NOT NULL,
  span BLOB NOT NULL
);
-- Time first: new entries go to the end, and pages are written once.
CREATE UNIQUE INDEX IF NOT EXISTS by_span ON exchanges (start_ns, span_id, trace_id);
";

impl Store {
    /// Opens or makes the database file.
    pub fn open(path: &Path, bounds: Bounds) -> Result<Self> {
        // SQLite would make it readable for all; its companions take its mode.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| Error::Unwritable { path: path.to_owned(), source })?;
        let write = Connection::open(path)?;
        write.pragma_update(None, "journal_mode", "WAL")?;
        // The file goes with its instance: nothing has to survive a power cut.
        write.pragma_update(None, "synchronous", "OFF")?;
        write.execute_batch(SCHEMA)?;
        let (stored, bytes) = write.query_row("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM exchanges", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })?;
        let counts = Counts { stored: unsigned(stored), bytes: unsigned(bytes), ..Counts::default() };
        let read = Connection::open(path)?;
        Ok(Self { bounds, write: Mutex::new(Writer { connection: write, counts }), read: Mutex::new(read) })
    }

    /// Stores a batch in one transaction: all of it or, on an error, nothing.
    pub fn insert(&self, spans: &[StoredSpan]) -> Result<()> {
        let mut writer = lock(&self.write);
        let Writer { connection, counts } = &mut *writer;
        let mut after = *counts;
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO exchanges (start_ns, span_id, trace_id, direction, method, url, status, session, size, summary, span)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?;
            for StoredSpan { summary, ids, start_ns, span } in spans {
                let json = serde_json::to_string(summary).map_err(|e| Error::Store(e.to_string()))?;
                let size = (span.len() + json.len()) as u64;
                let new = insert.execute(params![
                    signed(*start_ns),
                    ids.span,
                    ids.trace,
                    summary.direction,
                    summary.method,
                    summary.url,
                    summary.status,
                    summary.session_id,
                    signed(size),
                    json,
                    span,
                ])?;
                if new == 0 {
                    after.repeated += 1;
                } else {
                    after.stored += 1;
                    after.bytes += size;
                }
            }
            evict(&transaction, self.bounds, &mut after)?;
        }
        transaction.commit()?;
        *counts = after;
        Ok(())
    }

    pub fn counts(&self) -> Counts {
        lock(&self.write).counts
    }

    /// A page of summaries.
    pub fn list(&self, filter: &Filter) -> Result<Page> {
        let limit = filter.limit.unwrap_or(100).clamp(1, 10_000);
        let (condition, values) = conditions(filter);
        let order = if filter.after.is_some() { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT seq, summary FROM exchanges {condition} ORDER BY seq {order} LIMIT {}",
            u64::from(limit) + 1
        );
        let read = lock(&self.read);
        let mut statement = read.prepare_cached(&sql)?;
        let rows = statement.query_map(rusqlite::params_from_iter(values), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        let mut found = Vec::new();
        for row in rows {
            let (seq, json) = row?;
            found.push((seq, serde_json::from_str(&json).map_err(|e| Error::Store(e.to_string()))?));
        }
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next = found.last().map(|(seq, _)| *seq).filter(|_| more || filter.after.is_some());
        Ok(Page { exchanges: found.into_iter().map(|(_, summary)| summary).collect(), next })
    }

    /// The stored spans of a selection, oldest first, for exports.
    pub fn spans(&self, filter: &Filter) -> Result<Vec<ResourceSpans>> {
        let (condition, values) = conditions(filter);
        let limit = filter.limit.map_or(-1, i64::from);
        let sql = format!(
            "SELECT span FROM (SELECT seq, span FROM exchanges {condition} ORDER BY seq DESC LIMIT {limit}) ORDER BY seq"
        );
        let read = lock(&self.read);
        let mut statement = read.prepare_cached(&sql)?;
        let rows = statement.query_map(rusqlite::params_from_iter(values), blob)?;
        rows.map(|row| decode(&row?)).collect()
    }

    /// Up to `filter.limit` spans after `filter.after`, in the order in which they
    /// came, and where to go on; none: that was all.
    pub fn scan(&self, filter: &Filter) -> Result<(Vec<StoredSpan>, Option<i64>)> {
        let (condition, values) = conditions(filter);
        let limit = filter.limit.map_or(-1, i64::from);
        let columns = "seq, start_ns, span_id, trace_id, summary, span";
        let sql = format!("SELECT {columns} FROM exchanges {condition} ORDER BY seq LIMIT {limit}");
        let read = lock(&self.read);
        let mut statement = read.prepare_cached(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let (mut spans, mut last) = (Vec::new(), None);
        while let Some(row) = rows.next()? {
            last = Some(row.get(0)?);
            let summary: String = row.get(4)?;
            spans.push(StoredSpan {
                summary: serde_json::from_str(&summary).map_err(|e| Error::Store(e.to_string()))?,
                ids: Ids { span: row.get(2)?, trace: row.get(3)? },
                start_ns: unsigned(row.get(1)?),
                span: row.get(5)?,
            });
        }
        Ok((spans, last))
    }

    /// One span, unless it was evicted.
    pub fn get(&self, start_ns: u64, ids: &Ids) -> Result<Option<ResourceSpans>> {
        let read = lock(&self.read);
        let sql = "SELECT span FROM exchanges WHERE start_ns = ?1 AND span_id = ?2 AND trace_id = ?3";
        let mut statement = read.prepare_cached(sql)?;
        let found = statement.query_row(params![signed(start_ns), ids.span, ids.trace], blob).optional()?;
        found.map(|span| decode(&span)).transpose()
    }

    /// The one exchange whose span id begins with `id`.
    pub fn find(&self, id: &str) -> Result<ResourceSpans> {
        let unknown = || Error::NoExchange(id.to_owned());
        if id.len() > 16 || id.is_empty() || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let (low, high) = (unhex(&format!("{id:0<16}")), unhex(&format!("{id:f<16}")));
        let read = lock(&self.read);
        let range = "FROM exchanges INDEXED BY by_span WHERE span_id BETWEEN ?1 AND ?2";
        let count: i64 = read.query_row(&format!("SELECT COUNT(*) {range}"), params![low, high], |row| row.get(0))?;
        match count {
            0 => Err(unknown()),
            1 => {
                let found = read.query_row(&format!("SELECT span {range}"), params![low, high], blob).optional()?;
                decode(&found.ok_or_else(unknown)?)
            }
            _ => {
                Err(Error::AmbiguousExchange { id: id.to_owned(), count: usize::try_from(count).unwrap_or(usize::MAX) })
            }
        }
    }

    /// Sequence number of the newest exchange; 0 when there is none.
    pub fn newest(&self) -> Result<i64> {
        Ok(lock(&self.read).query_row("SELECT COALESCE(MAX(seq), 0) FROM exchanges", [], |row| row.get(0))?)
    }

    /// Forgets everything; the counts start again. Returns how many went.
    pub fn clear(&self) -> Result<u64> {
        let mut writer = lock(&self.write);
        let gone = writer.connection.execute("DELETE FROM exchanges", [])? as u64;
        // What was captured must be gone from the file too.
        writer.connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")?;
        writer.counts = Counts::default();
        Ok(gone)
    }
}

/// Drops the oldest exchanges until both bounds hold.
fn evict(connection: &Connection, bounds: Bounds, counts: &mut Counts) -> Result<()> {
    while counts.stored - counts.evicted > bounds.exchanges || counts.bytes > bounds.bytes {
        let held = counts.stored - counts.evicted;
        // A sixteenth at a time, so that eviction is rare and cheap.
        let share = (held / 16).max(held.saturating_sub(bounds.exchanges)).max(1);
        let (gone, bytes) = connection.query_row(
            "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM (SELECT size FROM exchanges ORDER BY seq LIMIT ?1)",
            [signed(share)],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
        )?;
        if gone == 0 {
            return Ok(());
        }
        connection.execute(
            "DELETE FROM exchanges WHERE seq IN (SELECT seq FROM exchanges ORDER BY seq LIMIT ?1)",
            [signed(share)],
        )?;
        counts.evicted += unsigned(gone);
        counts.bytes = counts.bytes.saturating_sub(unsigned(bytes));
    }
    Ok(())
}

fn conditions(filter: &Filter) -> (String, Vec<Box<dyn ToSql>>) {
    let mut parts = Vec::new();
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut add = |part: &str, value: Box<dyn ToSql>| {
        parts.push(part.to_owned());
        values.push(value);
    };
    if let Some(method) = &filter.method {
        add("method = ?", Box::new(method.to_ascii_uppercase()));
    }
    if let Some(status) = filter.status {
        add("status = ?", Box::new(status));
    }
    if let Some(direction) = &filter.direction {
        add("direction = ?", Box::new(direction.clone()));
    }
    if let Some(session) = &filter.session {
        add("session = ?", Box::new(session.clone()));
    }
    if let Some(trace) = &filter.trace {
        add("trace_id = ?", Box::new(unhex(trace)));
    }
    if let Some(url) = &filter.url {
        add("instr(url, ?) > 0", Box::new(url.clone()));
    }
    if let Some(after) = filter.after {
        add("seq > ?", Box::new(after));
    }
    if let Some(before) = filter.before {
        add("seq < ?", Box::new(before));
    }
    let condition = if parts.is_empty() { String::new() } else { format!("WHERE {}", parts.join(" AND ")) };
    (condition, values)
}

fn blob(row: &Row<'_>) -> rusqlite::Result<Vec<u8>> {
    row.get(0)
}

fn decode(span: &[u8]) -> Result<ResourceSpans> {
    ResourceSpans::decode(span).map_err(|e| Error::Store(e.to_string()))
}

/// Bytes of a hexadecimal id; what is not one gives bytes that fit none.
fn unhex(id: &str) -> Vec<u8> {
    let pairs = id.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    pairs.map_while(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

/// A panic elsewhere leaves plain data behind: go on with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.to_string())
    }
}
