//! A real registry that dies in the middle: what is said, and what a second
//! push does not send again.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::plugin;
use super::server::Server;
use crate::common::Spctl;

/// Passes connections on, and kills a process at once when it has passed so
/// many bytes, or a text; the port stays that of the relay.
fn relay(to: SocketAddr, pid: u32, after: u64, text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let passed = Arc::new(AtomicU64::new(0));
    let killed = Arc::new(AtomicBool::new(false));
    let kill = Arc::new(move || {
        // Once: its number may be another's afterwards.
        if !killed.swap(true, Ordering::SeqCst) {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    });
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let Ok(mut server) = TcpStream::connect(to) else {
                drop(client);
                continue;
            };
            let (mut back, mut forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                // Either side may go first.
                let _ = std::io::copy(&mut back, &mut forth);
                let _ = forth.shutdown(Shutdown::Both);
            });
            let (passed, kill) = (Arc::clone(&passed), Arc::clone(&kill));
            std::thread::spawn(move || {
                let mut piece = [0; 16 << 10];
                while let Ok(read @ 1..) = client.read(&mut piece) {
                    let seen = !text.is_empty() && String::from_utf8_lossy(&piece[..read]).contains(text);
                    if passed.fetch_add(read as u64, Ordering::SeqCst) + read as u64 > after || seen {
                        kill();
                    }
                    if server.write_all(&piece[..read]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

#[test]
fn killed_in_the_middle_of_an_upload() {
    let Some(mut server) = Server::start() else { return };
    let spctl = Spctl::new();
    let module = plugin(&spctl, 21, 20_000_000);
    let module = module.to_str().unwrap();
    // In the middle of the blob.
    let through = relay(server.address, server.pid(), 5_000_000, "");
    let error = spctl.error(&["push", &format!("{through}/kill/p:1"), "--plugin", module]);
    assert_eq!(error["exit"], 40, "{error}");
    assert_eq!(error["code"], "registry_truncated", "{error}");
    assert!(error["hint"].as_str().unwrap().contains("not sent again"), "{error}");
    server.run();
    assert_eq!(spctl.error(&["pull", &server.image("kill/p:1")])["code"], "registry_not_found", "half of nothing");
    // Behind the blobs, before the manifest.
    let through = relay(server.address, server.pid(), u64::MAX, "PUT /v2/kill/p/manifests");
    spctl.error(&["push", &format!("{through}/kill/p:1"), "--plugin", module]);
    server.run();
    let pushed = spctl.data(&["push", &server.image("kill/p:1"), "--plugin", module]);
    assert_eq!(pushed["blobs"], serde_json::json!({"sent": 0, "present": 2, "mounted": 0}), "what arrived stays");
    let pulled = spctl.data(&["pull", &server.image("kill/p:1"), "-f", "back.wasm"]);
    assert_eq!(pulled["plugin_digest"], pushed["plugin_digest"]);
}

#[test]
fn a_registry_that_comes_back_is_waited_for() {
    let Some(mut server) = Server::start() else { return };
    let spctl = Spctl::new();
    let module = plugin(&spctl, 22, 20_000_000);
    let through = relay(server.address, server.pid(), 5_000_000, "");
    let push = spctl
        .command(&["push", &format!("{through}/back/p:1"), "--plugin", module.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    server.kill();
    server.run();
    let ended = push.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn nobody_there_is_said_at_once() {
    let spctl = Spctl::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let started = std::time::Instant::now();
    for (registry, code) in
        [(port.to_string(), "registry_refused"), ("nowhere.invalid".to_owned(), "registry_unreachable")]
    {
        let error = spctl.error(&["pull", &format!("{registry}/p:1")]);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some(code), Some(40)), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn ctrl_c_ends_a_push() {
    let spctl = Spctl::new();
    let module = plugin(&spctl, 23, 1000);
    // A registry that takes the connection and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/p:1", silent.local_addr().unwrap());
    let mut push = spctl
        .command(&["push", &image, "--plugin", module.to_str().unwrap(), "--registry-plain-http"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _connection = silent.accept().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(push.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(push.wait().unwrap().code(), Some(130));
}
