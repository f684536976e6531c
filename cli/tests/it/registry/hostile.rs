//! A mock registry that lies, breaks off and does harm: no real one would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::plugin;
use super::server::digest;
use crate::common::{Spctl, in_background};

/// What the mock does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    None,
    /// Another manifest than the digest that was asked for.
    OtherManifest,
    /// A blob that is not what its digest says, of the right size.
    OtherBlob,
    /// More bytes than the manifest says.
    LongerBlob,
    /// Fewer, then an end.
    ShorterBlob,
    EndlessManifest,
    /// A proxy's login page.
    Page,
    NoJson,
    HugeLayer,
    Bomb,
    Link,
    Traversal,
    BadDigest,
    Denied,
    /// 429 so often, with `Retry-After: 1`.
    Busy(u32),
    /// 429 with a long pause.
    BusyForLong,
    /// 503 so often.
    Down(u32),
    /// A token that is good for one manifest.
    ShortToken,
    /// A token that no header may hold.
    BadToken,
    EndlessToken,
    /// 404 without an end.
    EndlessError,
    /// The token server is down so often.
    TokenDown(u32),
    /// The registry's first word is 503 so often.
    PingDown(u32),
    /// An error of its own, in the envelope.
    Rejects,
    /// A proxy's limit.
    Limit,
}

impl Lie {
    fn wants_token(self) -> bool {
        matches!(self, Self::BadToken | Self::ShortToken | Self::EndlessToken | Self::TokenDown(_) | Self::PingDown(_))
    }
}

struct Mock {
    lie: Lie,
    asked: AtomicU32,
    pings: AtomicU32,
    manifest: Vec<u8>,
    layer: Vec<u8>,
    address: std::sync::OnceLock<SocketAddr>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut out, bytes).unwrap();
    out.finish().unwrap()
}

fn layer(lie: Lie, module: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    let name: &[u8] = if lie == Lie::Traversal { b"../../../tmp/plugin.wasm" } else { b"plugin.wasm" };
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_size(module.len() as u64);
    if lie == Lie::Link {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_link_name("/etc/passwd").unwrap();
        header.set_size(0);
    }
    let mut tar = Vec::new();
    if lie == Lie::Bomb {
        let mut before = tar::Header::new_ustar();
        before.set_path("zeros").unwrap();
        before.set_size(1 << 30);
        before.set_cksum();
        // One small member of gzip after the other: 1 GiB from about 1 MB.
        let member = gzip(&vec![0; 1 << 20]);
        return [gzip(before.as_bytes()), member.repeat(1024)].concat();
    }
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(module);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    gzip(&tar)
}

/// Starts a mock that holds `module` as `p:1`.
fn mock(lie: Lie, module: &[u8]) -> SocketAddr {
    let layer = layer(lie, module);
    let claimed = match lie {
        Lie::HugeLayer => (256 << 20) + 1,
        Lie::LongerBlob => layer.len() - 10,
        _ => layer.len(),
    };
    let named = if lie == Lie::BadDigest { "../../../etc/passwd".to_owned() } else { digest(&layer) };
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": kind, "digest": named, "size": claimed}]});
    let manifest = match lie {
        Lie::NoJson => b"{\"schemaVersion\": 2,".to_vec(),
        _ => manifest.to_string().into_bytes(),
    };
    let mock = Arc::new(Mock {
        lie,
        asked: AtomicU32::new(0),
        pings: AtomicU32::new(0),
        manifest,
        layer,
        address: std::sync::OnceLock::new(),
    });
    in_background(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        mock.address.set(address).unwrap();
        let router = axum::Router::new().fallback(answer).with_state(mock);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    })
}

fn endless() -> Response {
    let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 64 << 10]));
    Body::from_stream(pieces).into_response()
}

async fn answer(State(mock): State<Arc<Mock>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    // First words are not counted: they are said by more than one.
    let at = mock.asked.fetch_add(u32::from(path != "/v2/"), Ordering::SeqCst);
    let error = |status: StatusCode, code: &str| {
        (status, json!({"errors": [{"code": code, "message": "said the mock"}]}).to_string()).into_response()
    };
    if path == "/v2/" {
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"x\"", mock.address.get().unwrap());
        let pinged = mock.pings.fetch_add(1, Ordering::SeqCst);
        return match mock.lie {
            Lie::PingDown(times) if pinged < times => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            lie if lie.wants_token() => (StatusCode::UNAUTHORIZED, [("www-authenticate", realm)]).into_response(),
            Lie::Page => "<html>log in to the network</html>".into_response(),
            _ => "{}".into_response(),
        };
    }
    match mock.lie {
        Lie::EndlessToken => return endless(),
        Lie::EndlessError => return (StatusCode::NOT_FOUND, endless()).into_response(),
        Lie::Rejects => return error(StatusCode::BAD_REQUEST, "NAME_INVALID"),
        Lie::Limit => return (StatusCode::PAYLOAD_TOO_LARGE, "nginx").into_response(),
        Lie::TokenDown(times) if path == "/token" && at < times => {
            return (StatusCode::SERVICE_UNAVAILABLE, "upstream").into_response();
        }
        Lie::TokenDown(_) | Lie::PingDown(_) if path == "/token" => {
            return json!({"token": "good"}).to_string().into_response();
        }
        Lie::TokenDown(_) | Lie::PingDown(_) if request.headers().get("authorization").is_none() => {
            return error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
        }
        Lie::BadToken => return json!({"token": "a\nx-evil: 1"}).to_string().into_response(),
        Lie::ShortToken if path == "/token" => return json!({"token": format!("t{at}")}).to_string().into_response(),
        Lie::ShortToken if path.contains("/manifests/") => {
            let token = request.headers()["authorization"].to_str().unwrap().to_owned();
            let given: u32 = token.strip_prefix("Bearer t").unwrap().parse().unwrap();
            // The next request after it was given.
            if given + 1 != at {
                return error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
            }
        }
        Lie::Page => return "<html>log in to the network</html>".into_response(),
        Lie::Denied => return error(StatusCode::FORBIDDEN, "DENIED"),
        Lie::Busy(times) if at < times => {
            let mut busy = error(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
            busy.headers_mut().insert("retry-after", "1".parse().unwrap());
            return busy;
        }
        Lie::BusyForLong => {
            let mut busy = error(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
            busy.headers_mut().insert("retry-after", "3600".parse().unwrap());
            return busy;
        }
        Lie::Down(times) if at < times => return (StatusCode::SERVICE_UNAVAILABLE, "upstream").into_response(),
        _ => {}
    }
    if path.contains("/manifests/") {
        if mock.lie == Lie::EndlessManifest {
            return endless();
        }
        let other = mock.lie == Lie::OtherManifest && path.contains("sha256:");
        let bytes = if other { [&mock.manifest[..], b" "].concat() } else { mock.manifest.clone() };
        return ([("content-type", MANIFEST)], bytes).into_response();
    }
    let mut blob = mock.layer.clone();
    match mock.lie {
        Lie::OtherBlob => blob[20] ^= 1,
        Lie::ShorterBlob => {
            // It says how much comes, and does not keep to it.
            let half = blob[..blob.len() / 2].to_vec();
            let pieces = [Ok(half), Err(std::io::Error::other("cut"))];
            let body = Body::from_stream(futures_util::stream::iter(pieces));
            return ([("content-length", blob.len().to_string())], body).into_response();
        }
        _ => {}
    }
    blob.into_response()
}

#[test]
fn each_lie_is_found_out_and_nothing_is_kept() {
    let spctl = Spctl::new();
    let module = std::fs::read(plugin(&spctl, 31, 5000)).unwrap();
    for (lie, code) in [
        (Lie::OtherBlob, "registry_digest_mismatch"),
        (Lie::LongerBlob, "registry_digest_mismatch"),
        (Lie::ShorterBlob, "registry_truncated"),
        (Lie::EndlessManifest, "registry_too_large"),
        (Lie::Page, "registry_protocol"),
        (Lie::NoJson, "registry_protocol"),
        (Lie::HugeLayer, "registry_too_large"),
        (Lie::Bomb, "registry_too_large"),
        (Lie::Link, "registry_hostile"),
        (Lie::Traversal, "registry_hostile"),
        (Lie::BadDigest, "registry_protocol"),
        (Lie::Denied, "registry_denied"),
        (Lie::BusyForLong, "registry_rate_limit"),
        (Lie::Down(u32::MAX), "registry_failed"),
        (Lie::BadToken, "registry_protocol"),
        (Lie::EndlessToken, "registry_protocol"),
        (Lie::EndlessError, "registry_not_found"),
        (Lie::TokenDown(u32::MAX), "registry_failed"),
        (Lie::PingDown(u32::MAX), "registry_failed"),
        (Lie::Rejects, "registry_rejected"),
    ] {
        let image = format!("{}/p:1", mock(lie, &module));
        let error = spctl.error(&["pull", &image]);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some(code), Some(40)), "{lie:?}: {error}");
        assert!(!error["causes"].as_array().unwrap().is_empty(), "{lie:?}: {error}");
        assert!(!spctl.home.path().join("p.wasm").exists(), "{lie:?}");
    }
    let address = mock(Lie::OtherManifest, &module);
    let wanted = digest(b"what was pushed");
    let error = spctl.error(&["pull", &format!("{address}/p@{wanted}")]);
    assert_eq!(error["code"], "registry_digest_mismatch", "{error}");
    spctl.data(&["pull", &format!("{}/p:1", mock(Lie::None, &module))]);
}

#[test]
fn what_passes_is_waited_for_as_long_as_the_registry_says() {
    let spctl = Spctl::new();
    let module = std::fs::read(plugin(&spctl, 32, 100)).unwrap();
    for (lie, at_least) in
        [(Lie::Busy(2), 2000), (Lie::Down(2), 1000), (Lie::TokenDown(2), 1000), (Lie::PingDown(2), 1000)]
    {
        let image = format!("{}/p:1", mock(lie, &module));
        let started = Instant::now();
        spctl.data(&["pull", &image, "-f", "p.wasm"]);
        assert!(started.elapsed() >= Duration::from_millis(at_least), "{lie:?}: {:?}", started.elapsed());
    }
}

#[test]
fn a_token_that_ran_out_is_asked_for_again() {
    let spctl = Spctl::new();
    let module = std::fs::read(plugin(&spctl, 34, 100)).unwrap();
    let image = format!("{}/p", mock(Lie::ShortToken, &module));
    let pulled = spctl.data(&["pull", &format!("{image}:1"), "-f", "p.wasm"]);
    spctl.data(&["pull", pulled["reference"].as_str().unwrap(), "-f", "p.wasm"]);
}

/// The mock as a proxy: it answers for a registry that nobody could look up.
#[test]
fn proxy_variables_are_heeded() {
    let spctl = Spctl::new();
    let module = std::fs::read(plugin(&spctl, 35, 100)).unwrap();
    let proxy = format!("http://{}", mock(Lie::None, &module));
    let pull = |environment: &[(&str, &str)]| {
        let mut pull = spctl.command(&["pull", "registry.invalid:5000/p:1", "-f", "p.wasm", "--registry-plain-http"]);
        pull.envs(environment.iter().copied()).output().unwrap().status.code()
    };
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        assert_eq!(pull(&[(variable, &proxy)]), Some(0), "{variable}");
    }
    assert_eq!(pull(&[]), Some(40));
    assert_eq!(pull(&[("HTTP_PROXY", &proxy), ("NO_PROXY", "registry.invalid")]), Some(40));
    // Loopback is never behind a proxy.
    let near = format!("{}/p:1", mock(Lie::None, &module));
    let mut pull = spctl.command(&["pull", &near, "-f", "p.wasm"]);
    assert!(pull.env("HTTP_PROXY", "http://127.0.0.1:1").output().unwrap().status.success());
}

#[test]
fn a_bomb_takes_neither_memory_nor_time() {
    let spctl = Spctl::new();
    let module = std::fs::read(plugin(&spctl, 33, 100)).unwrap();
    for lie in [Lie::Bomb, Lie::EndlessToken, Lie::EndlessError] {
        little_memory(&spctl, &format!("pull {}/p:1 -f p.wasm", mock(lie, &module)));
    }
}

#[test]
fn a_push_to_a_liar_ends_too() {
    let spctl = Spctl::new();
    let path = plugin(&spctl, 36, 100);
    let module = std::fs::read(&path).unwrap();
    let path = path.to_str().unwrap();
    for (lie, code) in [
        (Lie::BadToken, "registry_protocol"),
        (Lie::EndlessToken, "registry_protocol"),
        (Lie::EndlessError, "registry_not_found"),
    ] {
        let image = format!("{}/p:1", mock(lie, &module));
        let error = spctl.error(&["push", &image, "--plugin", path]);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some(code), Some(40)), "{lie:?}: {error}");
        little_memory(&spctl, &format!("push {image} --plugin {path}"));
    }
}

#[test]
fn a_registrys_own_reasons_are_shown() {
    let spctl = Spctl::new();
    let path = plugin(&spctl, 37, 100);
    let module = std::fs::read(&path).unwrap();
    for (lie, code, said) in [
        (Lie::Rejects, "registry_rejected", "NAME_INVALID: said the mock"),
        (Lie::Limit, "registry_limit", "413"),
        (Lie::TokenDown(u32::MAX), "registry_failed", "503"),
    ] {
        let image = format!("{}/p:1", mock(lie, &module));
        let error = spctl.error(&["push", &image, "--plugin", path.to_str().unwrap()]);
        assert_eq!(error["code"], code, "{lie:?}: {error}");
        assert!(error["causes"].to_string().contains(said), "{lie:?}: {error}");
    }
}

/// Runs what must fail in time without much memory.
fn little_memory(spctl: &Spctl, arguments: &str) {
    let script = format!("ulimit -v 2000000; exec {} {arguments}", env!("CARGO_BIN_EXE_spctl"));
    let started = Instant::now();
    let ended = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(spctl.home.path())
        .env("SPCTL_HOME", spctl.home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(40), "{said}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
