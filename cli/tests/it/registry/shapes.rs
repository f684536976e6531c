//! Images that other tools make: what Istio says of them, what `pull` says, and
//! whether the repair it offers works.

use serde_json::{Value, json};

use super::server::Server;
use super::{istio_loads, plugin};
use crate::common::Spctl;

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const WASM: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

/// An archive with these files, gzipped or not.
fn archive(files: &[(&str, &[u8])], gzip: bool) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    if !gzip {
        return tar;
    }
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut out, &tar).unwrap();
    out.finish().unwrap()
}

struct Maker<'a> {
    server: &'a Server,
    repository: String,
}

impl Maker<'_> {
    fn layer(&self, kind: &str, bytes: &[u8]) -> Value {
        json!({"mediaType": kind, "digest": self.server.put_blob(&self.repository, bytes), "size": bytes.len()})
    }

    fn manifest(&self, layers: &[Value]) -> Value {
        let config = self.layer("application/vnd.oci.image.config.v1+json", b"{}");
        json!({"schemaVersion": 2, "mediaType": OCI, "config": config, "layers": layers})
    }

    /// A child of an index, with its platform.
    fn child(&self, layers: &[Value], platform: Value) -> Value {
        let manifest = self.manifest(layers);
        let digest = super::server::digest(manifest.to_string().as_bytes());
        self.server.put_manifest(&self.repository, &digest, &manifest);
        json!({"mediaType": OCI, "digest": digest, "size": manifest.to_string().len(), "platform": platform})
    }

    fn put(&self, manifest: &Value) -> String {
        self.server.put_manifest(&self.repository, "1", manifest)
    }
}

fn index(children: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children})
}

#[test]
fn pull_takes_what_istio_refuses_says_so_in_its_words_and_repairs_it() {
    let Some(server) = Server::start() else { return };
    let spctl = Spctl::new();
    let module = std::fs::read(plugin(&spctl, 7, 1000)).unwrap();
    let amd64 = json!({"os": "linux", "architecture": "amd64"});
    let wasip1 = json!({"os": "wasip1", "architecture": "wasm"});
    let attestation = json!({"os": "unknown", "architecture": "unknown"});
    let good = archive(&[("plugin.wasm", &module)], true);
    let nested = archive(&[("a/README", b"x"), ("./a/b/plugin.wasm", &module), ("z", b"y")], true);
    let misnamed = archive(&[("my_filter.wasm", &module)], true);
    let plain = archive(&[("plugin.wasm", &module)], false);
    let empty = archive(&[("etc/passwd", b"x")], true);
    type Make<'a> = Box<dyn Fn(&Maker<'_>) -> Value + 'a>;
    let cases: Vec<(&str, Make<'_>, &str)> = vec![
        // Loaded, though by other tools.
        ("nested", Box::new(|m| m.manifest(&[m.layer(LAYER, &nested)])), "image"),
        ("several-layers", Box::new(|m| m.manifest(&[m.layer(LAYER, &empty), m.layer(LAYER, &good)])), "image"),
        (
            "swapped",
            Box::new(|m| m.manifest(&[m.layer("application/json", b"{}"), m.layer(WASM, &module)])),
            "artifact",
        ),
        (
            "buildx-index",
            Box::new(|m| {
                let image = m.child(&[m.layer(LAYER, &good)], amd64.clone());
                index(&[m.child(&[m.layer("application/vnd.in-toto+json", b"{}")], attestation.clone()), image])
            }),
            "image",
        ),
        // Refused.
        ("raw", Box::new(|m| m.manifest(&[m.layer(WASM, &module)])), "raw"),
        ("application-wasm", Box::new(|m| m.manifest(&[m.layer("application/wasm", &module)])), "raw"),
        (
            "wasm-to-oci",
            Box::new(|m| m.manifest(&[m.layer("application/vnd.wasm.content.layer.v1+wasm", &module)])),
            "raw",
        ),
        ("misnamed", Box::new(|m| m.manifest(&[m.layer(LAYER, &misnamed)])), "other-layer"),
        ("plain-tar", Box::new(|m| m.manifest(&[m.layer(TAR, &plain)])), "other-layer"),
        ("first-of-two", Box::new(|m| m.manifest(&[m.layer(LAYER, &good), m.layer(LAYER, &empty)])), "other-layer"),
        (
            "index-of-wasm",
            Box::new(|m| {
                let image = m.child(&[m.layer(LAYER, &good)], wasip1.clone());
                index(&[m.child(&[m.layer("application/vnd.in-toto+json", b"{}")], attestation.clone()), image])
            }),
            "image",
        ),
    ];
    for (name, make, layout) in cases {
        let maker = Maker { server: &server, repository: format!("shape/{name}") };
        let digest = maker.put(&make(&maker));
        let image = server.image(&format!("shape/{name}:1"));
        let file = format!("{name}.wasm");
        let pulled = spctl.data(&["pull", &image, "-f", &file]);
        assert_eq!(pulled["layout"], layout, "{name}: {pulled}");
        assert_eq!(std::fs::read(spctl.home.path().join(&file)).unwrap(), module, "{name}");
        let refused = pulled["refused"].as_array().unwrap();
        let inspected = spctl.data(&["inspect", &image]);
        for host in inspected["loads_in"].as_array().unwrap().iter().filter(|host| host["host"] == "istio") {
            assert_eq!(host["ok"], refused.is_empty(), "{name}: {host}");
        }
        let Some(istio) = istio_loads(&image, "") else { continue };
        assert_eq!(istio["ok"], refused.is_empty(), "{name}: Istio says {istio}, pull says {refused:?}");
        if refused.is_empty() {
            assert_eq!(istio["image_digest"], pulled["image_digest"], "{name}");
            // By the digest of an index it is refused all the same.
            let pinned = server.image(&format!("shape/{name}@{digest}"));
            let by_digest = spctl.data(&["pull", &pinned, "-f", &file]);
            let is_index = name.contains("index");
            assert_eq!(by_digest["refused"].as_array().unwrap().is_empty(), !is_index, "{name}");
            assert_eq!(istio_loads(&pinned, "").unwrap()["ok"], !is_index, "{name}");
            continue;
        }
        // In its own words, each of them.
        let said = istio["error"].as_str().unwrap();
        for words in refused[0]["rule"].as_str().unwrap().split("; ") {
            assert!(said.contains(words), "{name}: Istio says {said}; we say {words}");
        }
        let repair: Vec<&str> = pulled["repair"].as_str().unwrap().split(' ').skip(1).collect();
        spctl.data(&repair);
        assert_eq!(istio_loads(&image, "").unwrap()["ok"], true, "{name} repaired");
    }
}

#[test]
fn what_holds_no_plugin_says_what_it_holds() {
    let Some(server) = Server::start() else { return };
    let spctl = Spctl::new();
    let empty = archive(&[("etc/passwd", b"x")], true);
    let page = archive(&[("plugin.wasm", b"<html>not found")], true);
    type Make<'a> = Box<dyn Fn(&Maker<'_>) -> Value + 'a>;
    let cases: Vec<(&str, Make<'_>, &str)> = vec![
        ("empty", Box::new(|m| m.manifest(&[m.layer(LAYER, &empty)])), "registry_wrong_layout"),
        ("no-layers", Box::new(|m| m.manifest(&[])), "registry_wrong_layout"),
        (
            "chart",
            Box::new(|m| m.manifest(&[m.layer("application/vnd.cncf.helm.chart.content.v1.tar+json", b"x")])),
            "registry_wrong_layout",
        ),
        (
            "zstd",
            Box::new(|m| m.manifest(&[m.layer("application/vnd.oci.image.layer.v1.tar+zstd", b"x")])),
            "registry_wrong_layout",
        ),
        ("no-archive", Box::new(|m| m.manifest(&[m.layer(LAYER, b"no gzip at all")])), "registry_wrong_layout"),
        ("page", Box::new(|m| m.manifest(&[m.layer(LAYER, &page)])), "registry_not_plugin"),
        (
            "page-raw",
            Box::new(|m| m.manifest(&[m.layer(WASM, b"<html>"), m.layer("application/json", b"{}")])),
            "registry_not_plugin",
        ),
    ];
    for (name, make, code) in cases {
        let maker = Maker { server: &server, repository: format!("no/{name}") };
        maker.put(&make(&maker));
        let image = server.image(&format!("no/{name}:1"));
        let error = spctl.error(&["pull", &image]);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some(code), Some(40)), "{name}: {error}");
        assert!(!error["hint"].as_str().unwrap().is_empty());
        assert!(!spctl.home.path().join(format!("{name}.wasm")).exists(), "nothing is left");
        if let Some(istio) = istio_loads(&image, "") {
            assert_eq!(istio["ok"], false, "{name}");
        }
    }
}
