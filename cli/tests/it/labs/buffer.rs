//! The request buffer with a small control plane: requests for a host that is
//! scaled to zero wait, in order, within bounds, and whatever fails they pass.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};

use super::{Got, Lab, PATIENCE, leads, runtime_of_servers, upstream};
use crate::common::harnesses;

/// Says which hosts are held and counts what it is asked.
#[derive(Clone, Default)]
struct ControlPlane(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    hosts: Vec<String>,
    broken: bool,
    asked: u32,
    pokes: BTreeMap<String, u32>,
}

impl ControlPlane {
    async fn start(&self) -> SocketAddr {
        let router = Router::new()
            .route("/", get(Self::list))
            .route("/poke-scale-up", post(Self::poke))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    async fn list(State(this): State<Self>) -> impl IntoResponse {
        let mut seen = this.0.lock().unwrap();
        seen.asked += 1;
        if seen.broken {
            return (StatusCode::INTERNAL_SERVER_ERROR, String::new());
        }
        (StatusCode::OK, serde_json::to_string(&seen.hosts).unwrap())
    }

    async fn poke(State(this): State<Self>, Query(query): Query<BTreeMap<String, String>>) {
        *this.0.lock().unwrap().pokes.entry(query["host"].clone()).or_default() += 1;
    }

    fn pokes(&self) -> BTreeMap<String, u32> {
        self.0.lock().unwrap().pokes.clone()
    }

    /// Holds these hosts from now on; returns once the filters know.
    fn hold(&self, hosts: &[&str]) {
        let asked = {
            let mut seen = self.0.lock().unwrap();
            seen.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            seen.asked
        };
        // The second question comes when the first has been answered and shared.
        eventually("the list is fetched", || self.0.lock().unwrap().asked >= asked + 2);
    }
}

#[track_caller]
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Requests under way, each on a thread of its own.
fn begin<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    lab: &'scope Lab,
    host: &'static str,
) -> std::thread::ScopedJoinHandle<'scope, (Got, Instant)> {
    let begun = scope.spawn(move || (lab.get("/", &[("host", host)]), Instant::now()));
    // In order: the next one is not before it.
    std::thread::sleep(Duration::from_millis(60));
    begun
}

fn quick(lab: &Lab, host: &'static str) -> Got {
    let started = Instant::now();
    let got = lab.get("/", &[("host", host)]);
    assert!(started.elapsed() < Duration::from_millis(900), "{host}: {:?}", started.elapsed());
    got
}

const HELD: &str = "http.example.com";

#[test]
fn requests_wait_for_a_backend_within_bounds() {
    let servers = runtime_of_servers();
    let upstream = servers.block_on(upstream::start());
    let mut seen = Vec::new();
    for harness in harnesses() {
        let plane = ControlPlane::default();
        let at = servers.block_on(plane.start());
        let places =
            [leads("http", 50001, upstream), leads("other", 50002, upstream), leads("control-plane", 7001, at)];
        let patience = concat!(
            r#""control-plane-cluster": "control-plane", "poll-ms": 100, "tick-ms": 50, "max-wait-ms": 1500, "#,
            r#""max-age-ms": 1000, "poke-ms": 60000, "max-per-host": 2, "max-total": 3, "retry-after-s": 7}"#
        );
        let mut changes = vec![
            ("port_value: 8001", "port_value: 0"),
            ("port_value: 9000", "port_value: 0"),
            (r#""control-plane-cluster": "control-plane"}"#, patience),
        ];
        changes.extend(places.iter().map(|(from, to)| (from.as_str(), to.as_str())));
        let lab = Lab::start(harness, "request_buffer", &changes);
        seen.push((harness, story(&lab, &plane)));
    }
    for (harness, got) in &seen[1..] {
        assert_eq!(got, &seen[0].1, "{harness}");
    }
}

fn story(lab: &Lab, plane: &ControlPlane) -> Vec<Got> {
    let mut got = Vec::new();
    plane.hold(&[]);
    assert_eq!(quick(lab, HELD).status, 200, "an empty list holds nobody");

    plane.hold(&["HTTP.example.com", "grpc.example.com"]);
    assert_eq!(quick(lab, "free.example.com").status, 200);
    std::thread::scope(|scope| {
        let first = begin(scope, lab, "http.example.com:8080");
        let second = begin(scope, lab, HELD);
        // No more for this host, then no more at all.
        let full = quick(lab, HELD);
        assert_eq!((full.status, full.headers["retry-after"].as_str()), (503, "7"));
        let third = begin(scope, lab, "grpc.example.com");
        assert_eq!(quick(lab, "grpc.example.com").status, 503);
        eventually("both hosts are poked", || plane.pokes().len() == 2);
        let expected = [("grpc.example.com", 1), (HELD, 1)].map(|(host, count)| (host.to_owned(), count));
        assert_eq!(plane.pokes(), expected.into(), "one poke for each host");
        assert!(!first.is_finished() && !second.is_finished());

        plane.hold(&["grpc.example.com"]);
        let (first, second) = (first.join().unwrap(), second.join().unwrap());
        assert_eq!((first.0.status, second.0.status), (200, 200));
        assert!(!third.is_finished(), "its host is still held");
        let (late, _) = third.join().unwrap();
        assert_eq!((late.status, late.headers["retry-after"].as_str()), (503, "7"), "nobody waits forever");
        got.extend([full, first.0, second.0, late]);
    });

    // Who leaves makes room.
    plane.hold(&[HELD]);
    for _ in 0..4 {
        let stream = std::net::TcpStream::connect(lab.proxy).unwrap();
        std::io::Write::write_all(&mut &stream, b"GET / HTTP/1.1\r\nhost: http.example.com\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(60));
    }
    std::thread::scope(|scope| {
        let waiting = begin(scope, lab, HELD);
        std::thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished(), "it waits, though four came before it");
        // A control plane that answers no more holds nobody back for long.
        plane.0.lock().unwrap().broken = true;
        let (answer, _) = waiting.join().unwrap();
        assert_eq!(answer.status, 200, "the list has become too old");
        got.push(answer);
    });
    assert_eq!(quick(lab, HELD).status, 200);
    got
}
