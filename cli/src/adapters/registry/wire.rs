//! Requests as whoever we are, and answers of which no more is read than was
//! asked for: nothing that a registry sends fills memory.

use bytes::Bytes;
use futures_util::TryStreamExt;
use reqwest::header::RETRY_AFTER;
use reqwest::{RequestBuilder, Response, StatusCode, Url};

use super::credentials::Credential;
use super::failure::Failure;
use super::{Access, Registry, challenge};
use crate::error::RegistryProblem;

/// An error's body is quoted in a line: more is never read.
pub(super) const ERROR_BODY_MAX: u64 = 64 << 10;

impl Registry {
    /// A token, where the registry wants one; for `source` too, where a blob
    /// is to be mounted from there.
    async fn authorize(&self, source: Option<&str>) -> Result<Option<String>, Failure> {
        if let Credential::Bearer(token) = &self.credential {
            return Ok(Some(token.clone()));
        }
        if !challenge::is_bearer(&self.challenge) {
            return match self.credential {
                Credential::Identity(_) => {
                    Err(Failure::new(RegistryProblem::Protocol, "it names no place where its identity token is taken"))
                }
                _ => Ok(None),
            };
        }
        let rights = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let mut scopes = vec![format!("repository:{}:{rights}", self.reference.repository)];
        if let Some(source) = source {
            let both = [&scopes[..], &[format!("repository:{source}:pull")]].concat();
            match challenge::token(&self.http, &self.challenge, &both, &self.credential).await {
                // The source may be nothing that we may see: then it is sent.
                Err(failure) if matches!(failure.problem, RegistryProblem::Unauthorized | RegistryProblem::Denied) => {}
                other => return other.map(Some),
            }
        }
        scopes.truncate(1);
        challenge::token(&self.http, &self.challenge, &scopes, &self.credential).await.map(Some)
    }

    /// A token that was just given: they last for minutes, pushes may longer.
    pub(super) async fn renew(&self, source: Option<&str>) -> Result<(), Failure> {
        let fresh = self.authorize(source).await?;
        *self.token.lock().await = fresh;
        Ok(())
    }

    /// The answer to a request, which is a success; an error with what was said.
    pub(super) async fn ask(&self, request: impl Fn() -> Result<RequestBuilder, Failure>) -> Result<Response, Failure> {
        let token = self.token.lock().await.clone();
        let response = self.send(request()?, token.as_deref()).await?;
        // It may have run out meanwhile.
        let response = if response.status() == StatusCode::UNAUTHORIZED
            && token.is_some()
            && !matches!(self.credential, Credential::Bearer(_))
        {
            let fresh = self.authorize(None).await?;
            self.token.lock().await.clone_from(&fresh);
            self.send(request()?, fresh.as_deref()).await?
        } else {
            response
        };
        if response.status().is_success() { Ok(response) } else { Err(of_response(response).await) }
    }

    async fn send(&self, request: RequestBuilder, token: Option<&str>) -> Result<Response, Failure> {
        let (client, request) = request.build_split();
        let request = request?;
        // A place to upload to may be another's, who is told nothing.
        let ours = Url::parse(&self.base).is_ok_and(|base| base.origin() == request.url().origin());
        let request = RequestBuilder::from_parts(client, request);
        let request = match (token, &self.credential) {
            _ if !ours => request,
            (Some(token), _) => request.bearer_auth(token),
            (None, Credential::Basic { username, password }) => request.basic_auth(username, Some(password)),
            _ => request,
        };
        Ok(request.send().await?)
    }
}

/// What an answer that is no success says.
pub(super) async fn of_response(response: Response) -> Failure {
    let status = response.status().as_u16();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = bounded(response, ERROR_BODY_MAX).await.unwrap_or_default();
    Failure::of_status(status, &body).after(after)
}

/// The body of an answer, of at most `limit` bytes.
pub(super) async fn bounded(response: Response, limit: u64) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(piece) = stream.try_next().await? {
        if (bytes.len() + piece.len()) as u64 > limit {
            return Err(Failure::new(RegistryProblem::TooLarge, format!("an answer of more than {limit} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}
