//! Asks a running instance over its control socket.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::adapters::http::{collect, over_socket};
use crate::error::{Error, Report, Result};
use crate::state::{Found, Home, InstanceDir};

/// How long a process that was killed may hold its lock while it goes.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// A connection to one instance, opened anew for each question.
#[derive(Debug, Clone)]
pub struct Client {
    dir: InstanceDir,
}

/// The lines of a stream, as they come.
pub struct Lines {
    body: Incoming,
    partial: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
}

impl Client {
    /// The living instance of that name; a dead one is cleaned up and said so.
    pub fn find(home: &Home, name: &str) -> Result<Self> {
        let dir = home.instance(name);
        match dir.find()? {
            Found::Alive(_) => Ok(Self { dir }),
            Found::Nothing => Err(Error::NotRunning { name: name.to_owned() }),
            Found::Starting => Err(Error::Instance { reason: format!("`{name}` is still starting") }),
            Found::Dead => {
                dir.clean_up_dead()?;
                Err(Error::Died { name: name.to_owned() })
            }
        }
    }

    pub fn name(&self) -> &str {
        self.dir.name()
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        decode(&self.text(Method::GET, path, Bytes::new()).await?)
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, question: &impl Serialize) -> Result<T> {
        let body = serde_json::to_vec(question).map_err(|e| Error::Protocol(e.to_string()))?;
        decode(&self.text(Method::POST, path, body.into()).await?)
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        decode(&self.text(Method::DELETE, path, Bytes::new()).await?)
    }

    /// An answer that is not JSON (an export).
    pub async fn raw(&self, path: &str) -> Result<String> {
        let bytes = self.text(Method::GET, path, Bytes::new()).await?;
        String::from_utf8(bytes.into()).map_err(|e| Error::Protocol(e.to_string()))
    }

    /// A stream of JSON lines.
    pub async fn lines(&self, path: &str) -> Result<Lines> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        if !response.status().is_success() {
            return match collect(response).await {
                Ok(answer) => Err(self.refused(&answer.body)),
                Err(error) => Err(self.lost(error).await),
            };
        }
        Ok(Lines { body: response.into_body(), partial: Vec::new(), ready: VecDeque::new() })
    }

    async fn text(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let response = self.send(method, path, body).await?;
        match collect(response).await {
            Ok(answer) if answer.status.is_success() => Ok(answer.body),
            Ok(answer) => Err(self.refused(&answer.body)),
            Err(error) => Err(self.lost(error).await),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<hyper::Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "spctl")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| Error::Protocol(e.to_string()))?;
        match over_socket(&self.dir.socket(), request).await {
            Ok(response) => Ok(response),
            Err(error) => Err(self.lost(error).await),
        }
    }

    /// Why it does not answer: it may be dying, and hold its lock a moment longer.
    async fn lost(&self, error: std::io::Error) -> Error {
        let deadline = Instant::now() + LAST_BREATH;
        while Instant::now() < deadline {
            let name = || self.name().to_owned();
            match self.dir.find() {
                Ok(Found::Dead) => {
                    return self.dir.clean_up_dead().err().unwrap_or_else(|| Error::Died { name: name() });
                }
                Ok(Found::Nothing) => return Error::NotRunning { name: name() },
                Ok(Found::Alive(_) | Found::Starting) | Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Error::Instance { reason: format!("`{}` does not answer: {error}", self.name()) }
    }

    fn refused(&self, body: &[u8]) -> Error {
        match serde_json::from_slice::<Report>(body) {
            Ok(report) => Error::Remote(report),
            Err(_) => Error::Protocol(String::from_utf8_lossy(body).into_owned()),
        }
    }
}

impl Lines {
    /// The next document; none at the end of the stream.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return decode(&line).map(Some);
            }
            // An instance that stops ends the stream: that is its end, not an error.
            let Some(Ok(frame)) = self.body.frame().await else { return Ok(None) };
            let Ok(data) = frame.into_data() else { continue };
            self.partial.extend_from_slice(&data);
            while let Some(at) = self.partial.iter().position(|b| *b == b'\n') {
                let rest = self.partial.split_off(at + 1);
                self.ready.push_back(std::mem::replace(&mut self.partial, rest));
            }
        }
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::Protocol(e.to_string()))
}
