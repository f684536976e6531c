//! Remote code in a user's bootstrap: fetched from its cluster, plain or over
//! TLS, and held against its digest.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use spctl::state::hex;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::common::{Spctl, address, ask, harnesses, testdata};

/// Serves one module to whoever asks, and keeps what was asked.
struct Origin {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    async fn start(module: Vec<u8>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let origin = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let (module, asked) = (Bytes::from(module), origin.asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (module, asked, tls) = (module.clone(), asked.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                        let host = request.headers()["host"].to_str().unwrap().to_owned();
                        asked.lock().unwrap().push(format!("{host}{}", request.uri()));
                        let module = module.clone();
                        async move { Ok::<_, std::convert::Infallible>(hyper::Response::new(Full::new(module))) }
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    // A client that trusts somebody else goes away.
                    let _ = match tls {
                        None => server.serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => return,
                        },
                    };
                });
            }
        });
        origin
    }
}

/// A server for `modules.test`, whose certificate is written to `ca`.
fn acceptor(ca: &Path) -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(vec!["modules.test".to_owned()]).unwrap();
    std::fs::write(ca, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn bootstrap(url: &str, cluster: &str, sha256: &str, origin: SocketAddr, ca: Option<&Path>) -> String {
    let tls = ca.map_or(String::new(), |ca| {
        format!(
            r#"
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: modules.test
        common_tls_context: {{validation_context: {{trusted_ca: {{filename: {}}}}}}}"#,
            ca.display()
        )
    });
    format!(
        r#"
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress_http
          route_config:
            virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, direct_response: {{status: 200}}}}]}}]
          http_filters:
          - name: envoy.filters.http.wasm
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: remote
                vm_config:
                  runtime: envoy.wasm.runtime.v8
                  code:
                    remote:
                      http_uri: {{uri: {url}, cluster: {cluster}, timeout: 5s}}
                      sha256: {sha256}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: modules
    connect_timeout: 1s
    load_assignment:
      cluster_name: modules
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]{tls}
"#,
        origin.ip(),
        origin.port()
    )
}

#[test]
fn code_comes_from_its_cluster_and_must_be_what_was_promised() {
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let module = spctl::builder::build(&testdata().join("guests/training_header"), &|_| ()).unwrap().module;
    let digest = hex(&Sha256::digest(&module.bytes));
    let certificates = tempfile::tempdir().unwrap();
    let (ca, other_ca) = (certificates.path().join("ca.pem"), certificates.path().join("other.pem"));
    let secure = servers.block_on(Origin::start(module.bytes.to_vec(), Some(acceptor(&ca))));
    let plain = servers.block_on(Origin::start(module.bytes.to_vec(), None));
    let _ = acceptor(&other_ca);
    for harness in harnesses() {
        for (origin, url, ca) in [
            (&plain, "http://modules.test/a/b.wasm?c=d", None),
            (&secure, "https://modules.test:8443/a/b.wasm?c=d", Some(&*ca)),
        ] {
            let spctl = Spctl::new();
            let text = bootstrap(url, "modules", &digest, origin.address, ca);
            let file = spctl.file("envoy.yaml", text);
            let data = spctl.data(&["run", "--detach", "--harness", harness, "-c", file.to_str().unwrap()]);
            let answer = ask(address(&data["instances"][0]["proxy_url"]), "GET", "/");
            assert_eq!(answer.headers["x-training"], "envoy-wasm", "{harness} {url}");
        }
    }
    assert_eq!(plain.asked.lock().unwrap()[0], "modules.test/a/b.wasm?c=d");
    assert_eq!(secure.asked.lock().unwrap()[0], "modules.test:8443/a/b.wasm?c=d");

    let spctl = Spctl::new();
    let url = "https://modules.test/a.wasm";
    let wrong = "0".repeat(64);
    for (text, expected) in [
        (bootstrap(url, "modules", &wrong, secure.address, Some(&ca)), "code.remote.sha256"),
        (bootstrap(url, "elsewhere", &digest, secure.address, Some(&ca)), "no cluster `elsewhere`"),
        (bootstrap(url, "modules", &digest, secure.address, Some(&other_ca)), "certificate"),
        (bootstrap(url, "modules", &digest, secure.address, None), "from cluster `modules`"),
    ] {
        let file = spctl.file("envoy.yaml", text);
        let error = spctl.error(&["run", "--detach", "-c", file.to_str().unwrap()]);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("config_rejected"), Some(10)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(expected), "{expected}: {error}");
    }
}
