//! Who is let in by tokens: the reference registry with a token server that
//! grants to each what is theirs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::SigningKey;
use serde_json::{Value, json};

use super::auth::{PASSWORD, USER, done, refused, run};
use super::plugin;
use super::server::Server;
use crate::common::{Spctl, in_background};

/// A token server: whoever says PASSWORD may do all in `private/…` and
/// `public/…` and nothing elsewhere, others may pull from `public/…`. Its
/// tokens are JWTs that docker-registry verifies.
struct Tokens {
    key: rcgen::KeyPair,
    certificate: rcgen::Certificate,
    /// For identity tokens; every second token has run out when it comes.
    exchanged: AtomicU32,
}

impl Tokens {
    /// What of `scopes` is allowed, for five minutes from `since` ago.
    fn token(&self, scopes: &[&str], allowed: impl Fn(&str) -> &'static [&'static str], since: u64) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - since;
        let access = scopes.iter().filter(|scope| !scope.is_empty()).map(|scope| {
            let parts: Vec<&str> = scope.split(':').collect();
            let actions: Vec<&str> = parts[2].split(',').filter(|action| allowed(parts[1]).contains(action)).collect();
            json!({"type": "repository", "name": parts[1], "actions": actions})
        });
        let access: Vec<Value> = access.collect();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(self.certificate.der())]});
        let claims = json!({
            "iss": "test-issuer", "sub": "", "aud": "test-service", "exp": now + 300, "nbf": now - 10, "iat": now,
            "jti": "1", "access": access,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = fixed(&self.key.sign(signed.as_bytes()).unwrap());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// ECDSA's two numbers, 32 bytes each, out of their ASN.1.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::new();
    let mut at = 2;
    for _ in 0..2 {
        let length = usize::from(der[at + 1]);
        let number = &der[at + 2..at + 2 + length];
        let number = &number[number.len().saturating_sub(32)..];
        numbers.extend(std::iter::repeat_n(0, 32 - number.len()));
        numbers.extend_from_slice(number);
        at += 2 + length;
    }
    numbers
}

fn of_user(repository: &str) -> &'static [&'static str] {
    if repository.starts_with("private/") || repository.starts_with("public/") { &["pull", "push"] } else { &[] }
}

fn of_stranger(repository: &str) -> &'static [&'static str] {
    if repository.starts_with("public/") { &["pull"] } else { &[] }
}

async fn give(
    State(tokens): State<Arc<Tokens>>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    assert!(query.contains(&("service".to_owned(), "test-service".to_owned())));
    let scopes: Vec<&str> = query.iter().filter(|(name, _)| name == "scope").map(|(_, scope)| scope.as_str()).collect();
    let basic = |name: &str, password: &str| format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
    let token = match headers.get("authorization").map(|value| value.to_str().unwrap()) {
        Some(login) if login == basic(USER, PASSWORD) => tokens.token(&scopes, of_user, 0),
        Some(login) if login == basic("eve", PASSWORD) => {
            return (StatusCode::FORBIDDEN, "token has expired").into_response();
        }
        Some(_) => return (StatusCode::UNAUTHORIZED, "who are you?").into_response(),
        None => tokens.token(&scopes, of_stranger, 0),
    };
    Json(json!({"token": token})).into_response()
}

/// What `docker login` leaves for some registries: exchanged for an access token.
async fn exchange(State(tokens): State<Arc<Tokens>>, body: String) -> Response {
    let form: HashMap<String, String> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    if form.get("grant_type").map(String::as_str) != Some("refresh_token") || form["refresh_token"] != PASSWORD {
        return (StatusCode::UNAUTHORIZED, "no").into_response();
    }
    let scopes: Vec<&str> = form["scope"].split(' ').collect();
    let since = if tokens.exchanged.fetch_add(1, Ordering::SeqCst) % 2 == 0 { 3600 } else { 0 };
    Json(json!({"access_token": tokens.token(&scopes, of_user, since)})).into_response()
}

async fn token_server(tokens: Tokens) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router =
        axum::Router::new().route("/token", axum::routing::get(give).post(exchange)).with_state(Arc::new(tokens));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

#[test]
fn token_authentication() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["issuer".to_owned()]).unwrap().self_signed(&key).unwrap();
    let bundle = dir.path().join("issuer.crt");
    std::fs::write(&bundle, certificate.pem()).unwrap();
    let realm = in_background(token_server(Tokens { key, certificate, exchanged: AtomicU32::new(0) }));
    let Some(server) = Server::start_with(
        "",
        &format!(
            "auth: {{token: {{realm: \"http://{realm}/token\", service: test-service, issuer: test-issuer, rootcertbundle: {}}}}}",
            bundle.display()
        ),
    ) else {
        return;
    };
    let spctl = Spctl::new();
    let module = plugin(&spctl, 14, 100);
    let module = module.to_str().unwrap();
    let registry = server.address.to_string();
    let [private, public] = ["private/p:1", "public/p:1"].map(|path| server.image(path));
    let push = |image: &str, environment: &[(&str, &str)]| {
        run(&spctl, &["push", image, "--plugin", module, "-o", "json"], environment, "")
    };
    let pull = |image: &str| run(&spctl, &["pull", image, "-f", "p.wasm", "-o", "json"], &[], "");
    let login = [("SPCTL_REGISTRY_USERNAME", USER), ("SPCTL_REGISTRY_PASSWORD", PASSWORD)];
    refused(&push(&public, &[]), "registry_unauthorized");
    let wrong = [("SPCTL_REGISTRY_USERNAME", USER), ("SPCTL_REGISTRY_PASSWORD", "other")];
    refused(&push(&public, &wrong), "registry_unauthorized");
    done(&push(&public, &login));
    done(&push(&private, &login));
    done(&pull(&public));
    refused(&pull(&private), "registry_unauthorized");
    let login = ["login", &registry, "--username", USER, "--password-stdin", "-o", "json"];
    refused(&run(&spctl, &login, &[], "wrong"), "registry_unauthorized");
    let mut expired = login;
    expired[3] = "eve";
    refused(&run(&spctl, &expired, &[], PASSWORD), "registry_unauthorized");
    assert!(!spctl.home.path().join("docker/config.json").exists(), "a refused login is not kept");
    done(&run(&spctl, &login, &[], PASSWORD));
    done(&pull(&private));
    // A mount needs a right to its source; without one it is sent.
    for (source, mounted) in [("private/p", true), ("other/p", false)] {
        let image = server.image(&format!("public/mounted-{mounted}:1"));
        let push = ["push", &image, "--plugin", module, "--mount-from", source, "-o", "json"];
        let pushed: Value = serde_json::from_str(&done(&run(&spctl, &push, &[], ""))).unwrap();
        assert_eq!(pushed["data"]["blobs"]["mounted"].as_u64() > Some(0), mounted, "{pushed}");
    }
    // An identity token in its place.
    let file = spctl.home.path().join("docker/config.json");
    let identity = json!({"auths": {&registry: {"auth": STANDARD.encode("00000000:"), "identitytoken": PASSWORD}}});
    std::fs::write(&file, identity.to_string()).unwrap();
    done(&pull(&private));
    let other = plugin(&spctl, 17, 100);
    let again = server.image("private/again:1");
    done(&run(&spctl, &["push", &again, "--plugin", other.to_str().unwrap(), "-o", "json"], &[], ""));
}
