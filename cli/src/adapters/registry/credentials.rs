//! Who we are to a registry: the environment, Docker's configuration with its
//! credential helpers, Podman's and ORAS's files. Never an argument.

use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};

use super::failed;
use crate::error::{Error, RegistryProblem, Result};
use crate::reference::{HUB, Reference};
use crate::state::read_small;

/// Docker Hub's key in every file of this kind.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// What helpers answer when they hold nothing (docker/docker-credential-helpers `credentials/error.go`).
pub(super) const NOTHING: &str = "credentials not found";

/// Podman's variable, which takes the place of all files.
const AUTH_FILE: &str = "REGISTRY_AUTH_FILE";
/// A file of logins is smaller.
pub(super) const FILE_MAX: u64 = 4 << 20;

/// A login. No `Debug`: it must not get into a log.
pub(super) enum Credential {
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// To be exchanged for an access token.
    Identity(String),
    /// An access token itself.
    Bearer(String),
}

pub(super) struct Found {
    pub(super) credential: Credential,
    /// Why a login that seems to be there was not used.
    pub(super) warning: Option<String>,
}

pub(super) fn find(reference: &Reference) -> Result<Found> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(credential) = of_environment(reference, variable)? {
        return Ok(Found { credential, warning: None });
    }
    let mut warning = None;
    for file in files() {
        let Ok(logins) = read_small(&file.path, FILE_MAX) else { continue };
        for key in keys(reference, file.by_repository) {
            match get_credential_from_reader(logins.as_slice(), &key) {
                Ok(DockerCredential::UsernamePassword(username, password)) => {
                    let credential = Credential::Basic { username, password };
                    return Ok(Found { credential, warning: None });
                }
                Ok(DockerCredential::IdentityToken(token)) => {
                    return Ok(Found { credential: Credential::Identity(token), warning: None });
                }
                Err(error) => match trouble(&error) {
                    None => {}
                    Some(Trouble::Helper(why)) => {
                        warning =
                            Some(format!("`{}` names a credential helper that failed: {why}", file.path.display()));
                    }
                    Some(Trouble::File(why)) => {
                        let cause = format!("`{}`: {why}", file.path.display());
                        return Err(failed(reference, RegistryProblem::Credentials, cause));
                    }
                },
            }
        }
    }
    Ok(Found { credential: Credential::Anonymous, warning })
}

/// `SPCTL_REGISTRY` says which registry the others are for; unset, any.
fn of_environment(reference: &Reference, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Credential>> {
    if variable("SPCTL_REGISTRY").is_some_and(|only| only != reference.registry) {
        return Ok(None);
    }
    if let Some(token) = variable("SPCTL_REGISTRY_TOKEN") {
        return Ok(Some(Credential::Bearer(token)));
    }
    match (variable("SPCTL_REGISTRY_USERNAME"), variable("SPCTL_REGISTRY_PASSWORD")) {
        (Some(username), Some(password)) => Ok(Some(Credential::Basic { username, password })),
        (None, None) => Ok(None),
        _ => Err(Error::Usage("SPCTL_REGISTRY_USERNAME and SPCTL_REGISTRY_PASSWORD belong together".into())),
    }
}

/// A path that a variable of the environment names.
fn from(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

struct Place {
    path: PathBuf,
    /// Podman has logins for single repositories too.
    by_repository: bool,
}

fn files() -> Vec<Place> {
    let podman = |path: PathBuf| Place { path, by_repository: true };
    if let Some(path) = from(AUTH_FILE) {
        return vec![podman(path)];
    }
    let runtime = from("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    let config = from("XDG_CONFIG_HOME").or_else(|| from("HOME").map(|home| home.join(".config")));
    let config = config.map(|dir| dir.join("containers/auth.json"));
    let docker = docker_file().map(|path| Place { path, by_repository: false });
    docker.into_iter().chain(runtime.into_iter().chain(config).map(podman)).collect()
}

/// The file that logins are written to: the one that is read.
pub(super) fn login_file() -> Option<PathBuf> {
    from(AUTH_FILE).or_else(docker_file)
}

/// The file that Docker and ORAS share.
fn docker_file() -> Option<PathBuf> {
    let directory = from("DOCKER_CONFIG").or_else(|| from("HOME").map(|home| home.join(".docker")))?;
    Some(directory.join("config.json"))
}

/// Under which key a registry's login is stored.
pub(super) fn key(registry: &str) -> String {
    if registry == HUB { HUB_KEY.to_owned() } else { registry.to_owned() }
}

/// From the most particular to the registry itself.
fn keys(reference: &Reference, by_repository: bool) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = reference.repository.as_str();
    while by_repository && !path.is_empty() {
        keys.push(format!("{}/{path}", reference.registry));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    keys.push(key(&reference.registry));
    keys
}

enum Trouble {
    Helper(String),
    File(String),
}

/// None: there is no login, which is no trouble.
fn trouble(error: &CredentialRetrievalError) -> Option<Trouble> {
    use CredentialRetrievalError as E;
    match error {
        E::NoCredentialConfigured | E::ConfigNotFound => None,
        E::HelperFailure { stdout, stderr, .. } if format!("{stdout}{stderr}").contains(NOTHING) => None,
        // Its output may hold what it should have kept: only the name is told.
        E::HelperFailure { helper, .. } => Some(Trouble::Helper(format!("`{helper} get` ended with an error"))),
        E::HelperCommunicationError => Some(Trouble::Helper("it could not be run; is it on PATH?".into())),
        E::MalformedHelperResponse => Some(Trouble::Helper("its answer is not what helpers answer".into())),
        E::ConfigReadError => Some(Trouble::File("it cannot be read, or is no JSON object of logins".into())),
        E::CredentialDecodingError | E::CredentialMismatchError => Some(Trouble::File(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_keys_go_from_the_repository_up() {
        let reference = Reference::parse("r.io/a/b:1").unwrap();
        assert_eq!(keys(&reference, true), ["r.io/a/b", "r.io/a", "r.io"]);
        assert_eq!(keys(&Reference::parse("o/p").unwrap(), false), [HUB_KEY]);
    }

    #[test]
    fn the_environment_may_name_the_registry_that_it_is_for() {
        let reference = Reference::parse("r.io/a").unwrap();
        let login = |registry: &'static str| {
            move |name: &str| match name {
                "SPCTL_REGISTRY" => Some(registry.to_owned()).filter(|r| !r.is_empty()),
                "SPCTL_REGISTRY_USERNAME" => Some("u".into()),
                "SPCTL_REGISTRY_PASSWORD" => Some("p".into()),
                _ => None,
            }
        };
        assert!(matches!(of_environment(&reference, login("")), Ok(Some(Credential::Basic { .. }))));
        assert!(matches!(of_environment(&reference, login("r.io")), Ok(Some(_))));
        assert!(matches!(of_environment(&reference, login("other.io")), Ok(None)));
        let half = |name: &str| (name == "SPCTL_REGISTRY_USERNAME").then(|| "u".to_owned());
        assert!(of_environment(&reference, half).is_err());
    }
}
