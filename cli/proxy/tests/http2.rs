//! HTTP/2 on both sides, beside a real Envoy where there is one.

mod common;
#[allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test that cannot be set up has failed; HTTP/1 is compared elsewhere"
)]
#[path = "parity/envoy.rs"]
mod envoy;
#[allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#[path = "common/http2.rs"]
mod peers;

use std::sync::Arc;
use std::time::Duration;

use common::{echo, guest, setup, spec};
use envoy::{Envoy, EnvoySettings};
use peers::{Client, Plan, Said, Seen, server};
use spctl_proxy::{Codec, DownstreamTls, ProxyConfig, UpstreamProtocol};

const ROUTES: &str = "{name: local, virtual_hosts: [{name: all, domains: [\"*\"], routes: [{match: {prefix: \"/\"}, route: {cluster: app}}]}]}";

fn over_http2(config: &mut ProxyConfig) {
    config.workers = 1;
    config.clusters[0].protocol = UpstreamProtocol::Http2;
}

/// What client and upstream saw of one exchange, through our proxy and through
/// Envoy, if there is one; they must be the same.
fn through_both(plan: &Plan, ask: impl AsyncFn(&mut Client) -> Said) -> (Said, Seen) {
    peers::runtime().block_on(async {
        let (upstream, seen) = server(plan.clone()).await;
        let running = setup(upstream).with(over_http2).start();
        let said = ask(&mut Client::connect(running.address).await).await;
        let seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some(binary) = envoy::binary() {
            let (upstream, envoys) = server(plan.clone()).await;
            let clusters = vec![envoy::cluster("app", upstream, "{http2_protocol_options: {}}", "")];
            let settings = EnvoySettings { routes: ROUTES.into(), clusters, ..EnvoySettings::default() };
            let envoy = Envoy::start(&binary, &settings);
            assert_eq!(ask(&mut Client::connect(envoy.address).await).await, said, "left: Envoy");
            let envoys = envoys.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            assert_eq!(envoys, seen, "left: Envoy");
        }
        (said, seen)
    })
}

#[test]
fn a_request_and_its_answer_pass_with_trailers_both_ways() {
    let plan = Plan { trailers: vec![("x-down", "2")], ..Plan::body("hello") };
    let (said, seen) = through_both(&plan, async |client| {
        client
            .ask("POST", "/p?q", &[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")], "hi", &[("x-up", "1")])
            .await
    });
    assert_eq!((said.status, said.body.as_str(), said.trailers.as_str()), (200, "hello", "x-down: 2\n"));
    assert_eq!((seen.body.as_str(), seen.trailers.as_str()), ("hi", "x-up: 1\n"));
    assert!(
        seen.head.starts_with("POST http://host/p?q\n") && seen.head.contains("cookie: a=1; b=2\n"),
        "{}",
        seen.head
    );
}

#[test]
fn answers_without_a_body_end_with_their_headers() {
    let plan = Plan { status: 204, ..Plan::default() };
    let (said, _) = through_both(&plan, async |client| client.ask("GET", "/", &[], "", &[]).await);
    assert_eq!((said.status, said.body.as_str()), (204, ""));
}

#[test]
fn an_upstream_that_resets_is_told_of_as_envoy_tells_it() {
    for (reason, status, word) in [
        (h2::Reason::REFUSED_STREAM, 503, "remote refused stream reset"),
        (h2::Reason::INTERNAL_ERROR, 503, "remote reset"),
        (h2::Reason::CANCEL, 503, "remote reset"),
    ] {
        let plan = Plan { reset: Some(reason), ..Plan::default() };
        let (said, _) = through_both(&plan, async |client| client.ask("GET", "/", &[], "", &[]).await);
        let text = format!("upstream connect error or disconnect/reset before headers. reset reason: {word}");
        assert_eq!((said.status, said.body), (status, text), "{reason}");
    }
}

#[test]
fn a_response_that_is_reset_upstream_is_reset_downstream() {
    let plan = Plan { reset_within: true, ..Plan::body("part") };
    let (said, _) = through_both(&plan, async |client| client.ask("GET", "/", &[], "", &[]).await);
    assert_eq!((said.status, said.reset.is_some()), (200, true));
}

#[test]
fn interim_answers_end_here_and_expectations_are_met_here() {
    let plan = Plan { interim: true, ..Plan::body("ok") };
    let (said, seen) =
        through_both(&plan, async |client| client.ask("POST", "/", &[("expect", "100-continue")], "hi", &[]).await);
    assert_eq!((said.status, said.interim.as_slice()), (200, &[100][..]));
    assert!(!seen.head.contains("expect:"), "{}", seen.head);
}

#[test]
fn a_tunnel_is_refused_unless_it_is_configured() {
    let (said, _) = through_both(&Plan::default(), async |client| client.ask("CONNECT", "h:80", &[], "", &[]).await);
    assert_eq!(said.status, 404);
}

#[test]
fn streams_of_one_client_share_connections() {
    peers::runtime().block_on(async {
        let (upstream, _) = server(Plan { delay: Duration::from_millis(100), ..Plan::body("ok") }).await;
        let running = setup(upstream).with(over_http2).start();
        let client = Client::connect(running.address).await;
        let asked = std::time::Instant::now();
        let all = (0..20).map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.ask("GET", "/", &[], "", &[]).await.status })
        });
        for one in all.collect::<Vec<_>>() {
            assert_eq!(one.await.ok(), Some(200));
        }
        assert!(asked.elapsed() < Duration::from_secs(1));
        assert_eq!(running.stat("http.ingress.downstream_cx_total"), 1);
        assert_eq!(running.stat("cluster.app.upstream_cx_total"), 1);
    });
}

#[test]
fn http2_downstream_meets_http1_upstream() {
    peers::runtime().block_on(async {
        let running = setup(echo()).start();
        let mut client = Client::connect(running.address).await;
        let said = client.ask("POST", "/", &[], "hi", &[("x-t", "1")]).await;
        assert!(said.body.starts_with("POST / HTTP/1.1\r\nhost: host\r\n"), "{}", said.body);
        assert!(said.body.contains("transfer-encoding: chunked\r\n") && said.body.ends_with("hi"), "{}", said.body);
    });
}

#[test]
fn filters_see_the_protocol_and_trailers() {
    peers::runtime().block_on(async {
        let (upstream, seen) = server(Plan { trailers: vec![("x-down", "2")], ..Plan::body("ok") }).await;
        let plugin = guest().request_headers("(drop (call $set (i32.const 0) `x-seen` `yes`)) (i32.const 0)");
        let running = setup(upstream).with(over_http2).filter(spec("plugin", &plugin)).start();
        let said = Client::connect(running.address).await.ask("GET", "/", &[], "", &[]).await;
        assert_eq!(said.trailers, "x-down: 2\n");
        let seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        assert!(seen.head.contains("x-seen: yes\n"), "{}", seen.head);
    });
}

#[test]
fn a_client_that_does_not_read_stops_the_upstream() {
    peers::runtime().block_on(async {
        let plan = Plan { repeat: 256, ..Plan::body(&"x".repeat(64 << 10)) };
        let (upstream, seen) = server(plan).await;
        let running = setup(upstream).with(over_http2).start();
        let mut client = Client::connect(running.address).await;
        let mut body = client.open("GET", "/").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let sent = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).sent;
        assert!(sent < 8 << 20, "{sent} bytes were taken for a client that reads nothing");
        let mut read = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap_or_default();
            let _ = body.flow_control().release_capacity(data.len());
            read += data.len();
        }
        assert_eq!(read, 256 * (64 << 10));
    });
}

#[test]
fn draining_lets_streams_end_and_tells_the_client_to_go() {
    peers::runtime().block_on(async {
        let (upstream, _) = server(Plan { delay: Duration::from_millis(200), ..Plan::body("ok") }).await;
        let running = Arc::new(setup(upstream).with(over_http2).start());
        let mut client = Client::connect(running.address).await;
        let mut other = client.clone();
        let asked = tokio::spawn(async move { other.ask("GET", "/", &[], "", &[]).await.status });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let draining = Arc::clone(&running);
        let report = tokio::task::spawn_blocking(move || draining.proxy.drain(Duration::from_secs(5))).await;
        assert_eq!(report.ok().map(|report| report.cut_streams), Some(0));
        assert_eq!(asked.await.ok(), Some(200));
        assert!(client.is_going().await);
    });
}

#[test]
fn tls_agrees_on_the_protocol() {
    peers::runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let (chain, key) = peers::certificate(directory.path());
        let running = setup(echo())
            .with(|config| {
                config.listeners[0].tls = Some(DownstreamTls {
                    certificate_chain: chain.clone(),
                    private_key: key,
                    alpn_protocols: vec!["h2".into(), "http/1.1".into()],
                });
            })
            .start();
        let (protocol, said) = peers::ask_over_tls(running.address, &chain, &[b"h2", b"http/1.1"]).await;
        assert_eq!(protocol.as_deref(), Some(&b"h2"[..]));
        assert!(said.contains("x-forwarded-proto: https\r\n"), "{said}");
        let (protocol, said) = peers::ask_over_tls(running.address, &chain, &[]).await;
        assert_eq!(protocol, None);
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    });
}

#[test]
fn a_listener_may_speak_one_protocol_alone() {
    peers::runtime().block_on(async {
        let running = setup(echo()).with(|config| config.listeners[0].codec = Codec::Http2).start();
        assert_eq!(Client::connect(running.address).await.ask("GET", "/", &[], "", &[]).await.status, 200);
        let answer = running.client().send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").rest();
        assert!(!answer.starts_with(b"HTTP/1.1"));
    });
}
