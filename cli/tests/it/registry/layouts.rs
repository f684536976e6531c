//! What `push` sends: read by the real registry, by skopeo, and by Istio.

use std::process::Command;

use serde_json::Value;

use super::server::Server;
use super::{istio_loads, plugin};
use crate::common::{Spctl, tool};

const LAYOUTS: [&str; 3] = ["image", "artifact", "docker"];

#[test]
fn each_layout_is_loaded_by_istio_as_it_was_pushed() {
    let Some(server) = Server::start() else { return };
    let spctl = Spctl::new();
    let module = plugin(&spctl, 1, 10_000);
    for layout in LAYOUTS {
        let image = server.image(&format!("demo/{layout}:1.0"));
        let pushed = spctl.data(&["push", &image, "--plugin", module.to_str().unwrap(), "--layout", layout]);
        assert_eq!((&pushed["layout"], &pushed["verified"]), (&layout.into(), &true.into()), "{pushed}");
        let digest = pushed["image_digest"].as_str().unwrap();
        let pinned = pushed["reference"].as_str().unwrap();
        assert_eq!(pinned, server.image(&format!("demo/{layout}@sha256:{digest}")));
        for (url, checksum) in [(image.as_str(), ""), (image.as_str(), digest), (pinned, "")] {
            let Some(loaded) = istio_loads(url, checksum) else { continue };
            assert_eq!(loaded["ok"], true, "{url}: {loaded}");
            assert_eq!(loaded["image_digest"], digest, "{url}");
            assert_eq!(loaded["plugin_digest"], pushed["plugin_digest"], "{url}");
        }
        for reference in [image.as_str(), pinned] {
            let pulled = spctl.data(&["pull", reference, "-f", "back.wasm"]);
            assert_eq!(pulled["refused"].as_array().unwrap().len(), 0, "{pulled}");
            for member in ["reference", "image_digest", "plugin_digest", "layout"] {
                assert_eq!(pulled[member], pushed[member], "{pulled}");
            }
            assert_eq!(std::fs::read(spctl.home.path().join("back.wasm")).unwrap(), std::fs::read(&module).unwrap());
        }
    }
}

#[test]
fn the_same_bytes_give_the_same_digest_whoever_pushes_them_when() {
    let Some(server) = Server::start() else { return };
    let (one, two) = (Spctl::new(), Spctl::new());
    let [first, second] = [&one, &two].map(|spctl| {
        let module = plugin(spctl, 2, 1000);
        let run = |image: &str, more: &[&str]| {
            let mut push = spctl.command(&[&["push", image, "--plugin", "plugin-2.wasm", "-q"], more].concat());
            let out = push.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            assert_eq!(out.stderr, b"", "quiet");
            String::from_utf8(out.stdout).unwrap()
        };
        assert!(module.exists());
        let image = server.image("same/p:1");
        // A dry run connects to nothing, and knows what a push would say.
        let dry = run("127.0.0.1:1/same/p:1", &["--dry-run"]);
        let real = run(&image, &[]);
        assert_eq!(dry.rsplit_once('@').unwrap().1, real.rsplit_once('@').unwrap().1);
        assert_eq!(real.lines().count(), 1, "only the reference: {real}");
        real
    });
    assert_eq!(first, second);
    let pushed = one.data(&["push", &server.image("same/p:2"), "--plugin", "plugin-2.wasm"]);
    assert!(!first.contains(pushed["image_digest"].as_str().unwrap()), "SOURCE_DATE_EPOCH is in the digest");
}

#[test]
fn tags_annotations_and_blobs_that_are_there_already() {
    let Some(server) = Server::start() else { return };
    let spctl = Spctl::new();
    let module = plugin(&spctl, 3, 1000);
    let module = module.to_str().unwrap();
    let note = ["--annotation", "org.opencontainers.image.source=https://h/r", "--annotation", "x=y=z"];
    let image = server.image("a/p:1");
    let push = [&["push", &image, "--plugin", module, "--tag", "latest", "--tag", "v1"], &note[..]].concat();
    let first = spctl.data(&push);
    assert_eq!(first["blobs"], serde_json::json!({"sent": 2, "present": 0, "mounted": 0}));
    assert_eq!(first["tags"], serde_json::json!(["1", "latest", "v1"]));
    for tag in ["1", "latest", "v1"] {
        let pulled = spctl.data(&["pull", &server.image(&format!("a/p:{tag}")), "-f", "p.wasm"]);
        assert_eq!(pulled["image_digest"], first["image_digest"], "{tag}");
    }
    assert_eq!(spctl.data(&push)["blobs"], serde_json::json!({"sent": 0, "present": 2, "mounted": 0}));
    let image = server.image("b/p:1");
    let other = ["push", &image, "--plugin", module, "--mount-from", "a/p"];
    let other = [&other[..], &note[..]].concat();
    assert_eq!(spctl.data(&other)["blobs"], serde_json::json!({"sent": 0, "present": 0, "mounted": 2}));
    let image = server.image("c/p:1");
    let nowhere = ["push", &image, "--plugin", module, "--mount-from", "no/such"];
    assert_eq!(spctl.data(&nowhere)["blobs"]["sent"], 2, "what cannot be mounted is sent");

    let inspected = spctl.data(&["inspect", &server.image("a/p:1")]);
    let annotations = &inspected["image"]["annotations"];
    assert_eq!((&annotations["x"], &annotations["ai.softprobe.plugin.abi"]), (&"y=z".into(), &"0.2.1".into()));
    assert_eq!(annotations["org.opencontainers.image.source"], "https://h/r");
    let digest = format!("sha256:{}", first["plugin_digest"].as_str().unwrap());
    assert_eq!(annotations["ai.softprobe.plugin.digest"], digest);
}

#[test]
fn skopeo_reads_and_copies_what_was_pushed() {
    let Some(skopeo) = tool("SPCTL_TEST_SKOPEO", "skopeo") else { return };
    let Some(server) = Server::start() else { return };
    let spctl = Spctl::new();
    let module = plugin(&spctl, 4, 1000);
    let skopeo = |args: &[&str]| {
        let ended = Command::new(&skopeo).args(args).output().unwrap();
        assert!(ended.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ended.stderr));
        ended.stdout
    };
    for layout in LAYOUTS {
        let image = server.image(&format!("sk/{layout}:1"));
        let pushed = spctl.data(&["push", &image, "--plugin", module.to_str().unwrap(), "--layout", layout]);
        let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{image}")]);
        let digest = super::server::digest(&raw);
        assert_eq!(digest, format!("sha256:{}", pushed["image_digest"].as_str().unwrap()), "{layout}");
        let copy = server.image(&format!("copy/{layout}:1"));
        let flags = ["copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"];
        skopeo(&[&flags[..], &[&format!("docker://{image}"), &format!("docker://{copy}")]].concat());
        let pulled = spctl.data(&["pull", &copy, "-f", "copied.wasm"]);
        assert_eq!(pulled["image_digest"], pushed["image_digest"], "{layout}");
        if layout != "artifact" {
            let seen: Value =
                serde_json::from_slice(&skopeo(&["inspect", "--tls-verify=false", &format!("docker://{image}")]))
                    .unwrap();
            assert_eq!((&seen["Os"], &seen["Architecture"]), (&"linux".into(), &"amd64".into()));
        }
    }
}

#[test]
fn what_no_mesh_would_load_is_not_pushed() {
    let Some(server) = Server::start() else { return };
    let spctl = Spctl::new();
    let page = spctl.file("page.wasm", "<html>");
    let plain = spctl.file("plain.wasm", wat::parse_str("(module)").unwrap());
    for (path, code) in [(&page, "plugin_not_wasm"), (&plain, "plugin_no_abi")] {
        let error = spctl.error(&["push", &server.image("bad/p:1"), "--plugin", path.to_str().unwrap()]);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some(code), Some(11)), "{error}");
    }
    let odd = |import: &str| {
        let text = format!(
            "(module {import} (memory (export \"memory\") 1) (func (export \"proxy_abi_version_0_2_1\"))
              (func (export \"malloc\") (param i32) (result i32) i32.const 1024))"
        );
        spctl.file("odd.wasm", wat::parse_str(text).unwrap())
    };
    let unknown = odd("(import \"env\" \"nothing_like_it\" (func))");
    let push = ["push", &server.image("bad/p:1"), "--plugin", unknown.to_str().unwrap()];
    let error = spctl.error(&push);
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("plugin_unknown_imports"), Some(11)), "{error}");
    assert!(error["message"].as_str().unwrap().contains("env.nothing_like_it"), "{error}");
    assert_eq!(spctl.error(&["pull", &server.image("bad/p:1")])["code"], "registry_not_found");
    spctl.data(&[&push[..], &["--force"]].concat());
    // What some Envoys load is pushed, with a word on the others.
    odd("(import \"wasi_snapshot_preview1\" \"clock_res_get\" (func (param i32 i32) (result i32)))");
    let newer = spctl.run(&["push", &server.image("newer/p:1"), "--plugin", "odd.wasm"]);
    assert_eq!(newer.code, 0, "{}", newer.stderr);
    assert!(newer.stderr.contains("envoy 1.37 does not load it"), "{}", newer.stderr);
    assert!(!newer.stderr.contains("envoy 1.40"), "{}", newer.stderr);
    // A section of nothing that makes it large: the packing counts too.
    for (size, code) in [((256 << 20) - 100, "registry_too_large"), ((256 << 20) + 1, "file_unreadable")] {
        let large = large(&spctl, size);
        let error = spctl.error(&["push", &server.image("large/p:1"), "--plugin", large.to_str().unwrap()]);
        assert_eq!(error["code"], code, "{error}");
    }
    let fits = large(&spctl, (256 << 20) - 512);
    spctl.data(&["push", &server.image("large/p:1"), "--plugin", fits.to_str().unwrap()]);
    if let Some(istio) = istio_loads(&server.image("large/p:1"), "") {
        assert_eq!(istio["ok"], true, "{istio}");
    }
    for reference in ["UPPER/p", "r.io/p:a b", "r.io/p@sha256:1", "https://r.io/p"] {
        assert_eq!(spctl.error(&["push", reference, "--dry-run"])["code"], "usage", "{reference}");
    }
}

/// A plugin of exactly so many bytes, most of them zeros in a custom section.
fn large(spctl: &Spctl, size: u64) -> std::path::PathBuf {
    let path = plugin(spctl, 8, 0);
    let before = std::fs::metadata(&path).unwrap().len();
    let mut section = vec![0];
    // Its length in five bytes, whatever it is, and an empty name.
    let mut length = size - before - 6;
    for at in 0..5 {
        section.push(u8::try_from(length & 0x7f).unwrap() | if at < 4 { 0x80 } else { 0 });
        length >>= 7;
    }
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, &section).unwrap();
    file.set_len(size).unwrap();
    path
}

#[test]
fn images_run_and_reload_as_files_do() {
    let Some(server) = Server::start() else { return };
    for harness in crate::common::native_harnesses() {
        let spctl = Spctl::new();
        let [first, second] = [5, 6].map(|salt| plugin(&spctl, salt, 100));
        let image = server.image(&format!("run/my-filter-{harness}:1"));
        let push = |module: &std::path::Path| spctl.data(&["push", &image, "--plugin", module.to_str().unwrap()]);
        let pushed = push(&first);
        let started = spctl.data(&["run", "--detach", "--harness", harness, "--plugin", &image]);
        let plugin = &started["instances"][0]["plugins"][0];
        assert_eq!(plugin["name"], format!("my-filter-{harness}"), "{plugin}");
        assert_eq!(plugin["plugin_digest"], pushed["plugin_digest"]);
        assert_eq!(spctl.data(&["reload"])["changed"], false);
        // The tag has moved: what was run is pulled again.
        let again = push(&second);
        let reloaded = spctl.data(&["reload"]);
        assert_eq!((&reloaded["changed"], &reloaded["new"]), (&true.into(), &again["plugin_digest"]), "{reloaded}");
        assert_eq!(reloaded["image_digest"], again["image_digest"]);
        let pinned = format!("oci://{}", pushed["reference"].as_str().unwrap());
        let back = spctl.data(&["reload", "--plugin", &pinned]);
        assert_eq!((&back["new"], &back["image_digest"]), (&pushed["plugin_digest"], &pushed["image_digest"]));
        let served = &spctl.status()["proxies"][0]["plugins"][0];
        assert_eq!(
            (&served["plugin_digest"], &served["image_digest"]),
            (&pushed["plugin_digest"], &pushed["image_digest"]),
            "{served}"
        );
        let error = spctl.error(&["reload", "--plugin", &server.image("run/none:1")]);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("registry_not_found"), Some(40)));
    }
}
