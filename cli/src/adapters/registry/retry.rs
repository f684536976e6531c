//! Again, a little later: what registries ask for with 429 and 5xx.

use std::future::Future;
use std::time::Duration;

use super::failure::Failure;
use crate::error::RegistryProblem;

const ATTEMPTS: u32 = 5;
const FIRST: Duration = Duration::from_millis(400);
/// A registry that wants to be left alone for longer is an error to show.
const LONGEST: Duration = Duration::from_secs(20);

/// Does it again while it fails in a way that may pass.
pub(super) async fn retried<T, F>(attempt: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    repeat(attempt, |failure| failure.passing).await
}

/// The same for the first word with a registry: nobody there is no reason to wait.
pub(super) async fn unless_refused<T, F>(attempt: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let gone = [RegistryProblem::Refused, RegistryProblem::Unreachable];
    repeat(attempt, |failure| failure.passing && !gone.contains(&failure.problem)).await
}

async fn repeat<T, F>(attempt: impl Fn() -> F, again: impl Fn(&Failure) -> bool) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut pause = FIRST;
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(failure) if again(&failure) => {
                let wait = failure.after.map_or(pause, Duration::from_secs);
                if wait > LONGEST {
                    return Err(failure);
                }
                tokio::time::sleep(wait).await;
                pause *= 2;
            }
            other => return other,
        }
    }
    attempt().await
}
