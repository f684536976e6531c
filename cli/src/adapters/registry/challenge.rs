//! What a registry answers a stranger: where a login is taken, and whether
//! Istio would go there.

use std::net::IpAddr;

use reqwest::StatusCode;
use serde::Deserialize;

use super::failure::Failure;
use super::{ERROR_BODY_MAX, bounded};
use crate::error::RegistryProblem;
use crate::reference::host;

/// The `WWW-Authenticate` header of a registry; empty where anybody is let in.
pub(super) async fn ask(http: &reqwest::Client, ping: &str) -> Result<String, Failure> {
    let response = http.get(ping).send().await?;
    if response.status() != StatusCode::UNAUTHORIZED {
        return Ok(String::new());
    }
    let header = response.headers().get("www-authenticate").and_then(|value| value.to_str().ok());
    Ok(header.unwrap_or_default().to_owned())
}

/// An identity token (what `docker login` stores for some registries) for an
/// access token: distribution's OAuth2 token endpoint.
pub(super) async fn exchange(
    http: &reqwest::Client,
    challenge: &str,
    scope: &str,
    identity: &str,
) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Granted {
        access_token: String,
    }
    let Some(realm) = parameter(challenge, "realm") else {
        return Err(Failure::new(RegistryProblem::Protocol, "it names no place where its identity token is taken"));
    };
    let form: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", "spctl")
        .append_pair("service", parameter(challenge, "service").unwrap_or_default())
        .append_pair("scope", scope)
        .append_pair("refresh_token", identity)
        .finish();
    let request = http.post(realm).header("content-type", "application/x-www-form-urlencoded").body(form);
    let response = request.send().await?;
    let status = response.status();
    let body = bounded(response, ERROR_BODY_MAX).await?;
    if !status.is_success() {
        return Err(Failure::of_status(status.as_u16(), &body));
    }
    let granted: Granted = serde_json::from_slice(&body)
        .map_err(|e| Failure::new(RegistryProblem::Protocol, format!("its token cannot be read: {e}")))?;
    Ok(granted.access_token)
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
