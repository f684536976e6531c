//! What a registry answers a stranger: where a login is taken, and whether
//! Istio would go there.

use std::net::IpAddr;

use reqwest::StatusCode;
use serde::Deserialize;

use super::credentials::Credential;
use super::failure::Failure;
use super::wire::{ERROR_BODY_MAX, bounded, of_response};
use crate::error::RegistryProblem;
use crate::reference::{host, is_loopback};

/// What a registry says of logins, with its `WWW-Authenticate` header; empty
/// where anybody is let in.
pub(super) async fn ask(http: &reqwest::Client, ping: &str) -> Result<String, Failure> {
    let response = http.get(ping).send().await?;
    let status = response.status();
    if status != StatusCode::UNAUTHORIZED {
        // A registry that is down says nothing about logins.
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(of_response(response).await);
        }
        return Ok(String::new());
    }
    let headers = response.headers().get_all("www-authenticate").iter().filter_map(|value| value.to_str().ok());
    let headers: Vec<&str> = headers.collect();
    Ok(headers.iter().find(|header| is_bearer(header)).or(headers.first()).copied().unwrap_or_default().to_owned())
}

/// Whether tokens are wanted.
pub(super) fn is_bearer(challenge: &str) -> bool {
    challenge.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "))
}

/// Whether a registry that speaks TLS wants logins sent without.
pub(super) fn betrays_logins(challenge: &str, base: &str) -> bool {
    let plain = parameter(challenge, "realm").and_then(|realm| realm.strip_prefix("http://"));
    base.starts_with("https://")
        && is_bearer(challenge)
        && plain.is_some_and(|rest| !is_loopback(host(rest.split(['/', '?', '#']).next().unwrap_or_default())))
}

/// A token for `scopes` from where the challenge says (distribution
/// `docs/content/spec/auth/token.md` and, for an identity token, `oauth.md`).
pub(super) async fn token(
    http: &reqwest::Client,
    challenge: &str,
    scopes: &[String],
    credential: &Credential,
) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Granted {
        token: Option<String>,
        access_token: Option<String>,
    }
    let protocol = |why: &str| Failure::new(RegistryProblem::Protocol, why);
    let realm = parameter(challenge, "realm").and_then(|realm| reqwest::Url::parse(realm).ok());
    let mut realm = realm.ok_or_else(|| protocol("it names no place that gives tokens"))?;
    let service = parameter(challenge, "service");
    let request = if let Credential::Identity(identity) = credential {
        let form: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "spctl")
            .append_pair("service", service.unwrap_or_default())
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", identity)
            .finish();
        http.post(realm).header("content-type", "application/x-www-form-urlencoded").body(form)
    } else {
        let pairs = service.map(|service| ("service", service)).into_iter();
        realm.query_pairs_mut().extend_pairs(pairs.chain(scopes.iter().map(|scope| ("scope", scope.as_str()))));
        match credential {
            Credential::Basic { username, password } => http.get(realm).basic_auth(username, Some(password)),
            _ => http.get(realm),
        }
    };
    let response = request.send().await?;
    if !response.status().is_success() {
        let mut failure = of_response(response).await;
        if failure.problem == RegistryProblem::NotFound {
            failure.problem = RegistryProblem::Protocol;
        }
        failure.causes.push("said by the server that gives its tokens".into());
        return Err(failure);
    }
    let body = bounded(response, ERROR_BODY_MAX).await.map_err(|failure| match failure.problem {
        RegistryProblem::TooLarge => protocol("its token is an answer without an end"),
        _ => failure,
    })?;
    // The answer holds a secret: it is not quoted.
    let granted: Granted = serde_json::from_slice(&body).map_err(|_| protocol("its token cannot be read"))?;
    let token = granted.token.filter(|token| !token.is_empty()).or(granted.access_token).unwrap_or_default();
    if token.is_empty() {
        return Err(protocol("its token server gave no token"));
    }
    if !token.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        return Err(protocol("its token holds characters that no header may"));
    }
    Ok(token)
}

/// Why Istio's agent would not answer this challenge (istio/istio
/// `pkg/wasm/imagefetcher.go`, since 1.27.8, 1.28.5, 1.29.1 and 1.30.0): the
/// realm of any scheme of authentication must be the URL of a public host.
pub(super) fn refused_by_istio(challenge: &str) -> Option<String> {
    let realm = parameter(challenge, "realm")?;
    let shown: String = realm.chars().filter(|c| !c.is_control()).take(100).collect();
    let why = match realm.split_once("://") {
        Some(("http" | "https", rest)) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = host(authority.rsplit('@').next().unwrap_or_default());
            let is_inside = host.parse::<IpAddr>().is_ok_and(|address| match address {
                IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local(),
            });
            if !is_inside && host != "localhost" && host != "metadata.google.internal" && !host.is_empty() {
                return None;
            }
            "which is not the name of a public host"
        }
        _ => "which is not a URL",
    };
    Some(format!(
        "Istio refuses this registry (\"rejected unsafe bearer realm\", since 1.27.8, 1.28.5, 1.29.1 and 1.30): \
         its authentication realm is `{shown}`, {why}"
    ))
}

/// A parameter of a challenge.
fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let rest = challenge.split_once(&format!("{name}=\""))?.1;
    Some(rest.split_once('"')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_tell_realm_and_service() {
        let challenge = r#"Bearer realm="https://auth.r.io/token",service="r.io",scope="x""#;
        assert_eq!(parameter(challenge, "realm"), Some("https://auth.r.io/token"));
        assert_eq!(parameter(challenge, "service"), Some("r.io"));
        assert_eq!(parameter("Basic", "realm"), None);
        assert!(is_bearer(challenge) && is_bearer("bearer realm=x") && !is_bearer("Basic realm=x") && !is_bearer(""));
    }

    #[test]
    fn logins_do_not_leave_tls() {
        let at = |realm: &str| format!("Bearer realm=\"{realm}\",service=\"x\"");
        assert!(betrays_logins(&at("http://auth.r.io/token"), "https://r.io"));
        assert!(!betrays_logins(&at("https://auth.r.io/token"), "https://r.io"));
        assert!(!betrays_logins(&at("http://127.0.0.1:5001/token"), "https://127.0.0.1:5000"));
        assert!(!betrays_logins(&at("http://auth.r.io/token"), "http://r.io"));
    }

    #[test]
    fn istio_goes_to_public_hosts_alone() {
        for (realm, refused) in [
            ("https://auth.docker.io/token", false),
            ("http://registry.svc:5000/token", false),
            ("https://8.8.8.8/token", false),
            ("Registry Realm", true),
            ("basic-realm", true),
            ("http://localhost:5001/token", true),
            ("http://10.1.2.3/token", true),
            ("http://[::1]:5001/token", true),
            ("http://169.254.169.254/", true),
            ("http://metadata.google.internal/x", true),
            ("ftp://r.io/x", true),
        ] {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"x\"");
            assert_eq!(refused_by_istio(&challenge).is_some(), refused, "{realm}");
        }
        assert_eq!(refused_by_istio(""), None);
    }
}
