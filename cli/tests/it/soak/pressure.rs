//! Many exchanges under way at once: what the filter holds of them is bounded,
//! and what the bound costs is counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::resident;
use crate::common::{Spctl, address, dropped, native_harnesses};

/// As many as `SPCTL_SOAK_UPLOADS` says, or so many.
const UPLOADS: u64 = 600;
/// Sent of each body; the rest never comes.
const SENT: usize = 60 << 10;

fn uploads() -> u64 {
    std::env::var("SPCTL_SOAK_UPLOADS").map_or(UPLOADS, |count| count.parse().unwrap())
}

/// Reads everything and answers nothing.
fn silent_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut chunk = [0; 65536];
                while stream.read(&mut chunk).is_ok_and(|size| size > 0) {}
            });
        }
    });
    address
}

/// KiB that the proxy grows by while all uploads are under way, and how the
/// filter accounts for them afterwards: captured, stored, dropped, truncated.
fn measure(harness: &str, with: &[&str]) -> (u64, [u64; 4]) {
    let spctl = Spctl::new();
    let upstream = format!("http://{}", silent_upstream());
    let args = ["run", "--detach", "--harness", harness, "--workers", "1", "--upstream", &upstream];
    spctl.data(&[&args[..], with].concat());
    let proxy = address(&spctl.status()["proxy_url"]);
    let before = resident(&spctl, harness);
    let head = format!("POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 10 << 20);
    let body = vec![b'x'; SENT];
    let streams: Vec<TcpStream> = (0..uploads())
        .map(|_| {
            let mut stream = TcpStream::connect(proxy).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            stream
        })
        .collect();
    spctl.wait_status("all are under way", |s| s["counters"]["requests"] == uploads());
    std::thread::sleep(std::time::Duration::from_millis(500));
    let growth = resident(&spctl, harness).saturating_sub(before);
    drop(streams);
    if with == ["--no-plugin"] {
        return (growth, [0; 4]);
    }
    let status = spctl.wait_status("all are accounted for", |s| {
        let counters = &s["counters"];
        counters["captured"] == uploads() && counters["stored"].as_u64().unwrap() + dropped(counters) == uploads()
    });
    let counters = &status["counters"];
    let of = |name: &str| counters[name].as_u64().unwrap();
    (growth, [of("captured"), of("stored"), dropped(counters), of("truncated")])
}

#[test]
fn slow_uploads_by_the_hundred_stay_within_their_bound() {
    for harness in native_harnesses() {
        let spctl = Spctl::new();
        // Room for the headers of all, and for few bodies.
        let room = uploads() * 1750;
        let config = spctl.file("c.json", format!(r#"{{"limits": {{"streams_bytes": {room}}}}}"#));
        let (plain, _) = measure(harness, &["--no-plugin"]);
        let (bounded, counts) = measure(harness, &["--config", config.to_str().unwrap()]);
        eprintln!("{harness}: grew by {plain} KiB without a filter, {bounded} KiB with; {counts:?}");
        // All of six hundred would be 36 MB.
        // What the proxy itself takes for so many differs by a few percent.
        let bound = plain + plain / 20 + 12 * 1024 + room / 1024;
        assert!(bounded < bound, "{harness}: {bounded} KiB against {plain} KiB");
        let [captured, stored, dropped, truncated] = counts;
        // Bodies are cut before exchanges are lost; the first few fit. Thousands
        // that end at once are more than the queue holds.
        assert_eq!((captured, stored + dropped), (uploads(), uploads()), "{harness}");
        assert!(dropped <= (uploads() - UPLOADS) / 100, "{harness}: {dropped} dropped");
        assert!(truncated >= uploads() - dropped - room / SENT as u64, "{harness}: {truncated}");
    }
}
