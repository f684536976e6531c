//! Each rule by which Envoy refuses a module, on hand-made ones: what `inspect`
//! and the embedded host say is what real Envoys do.

use super::{differences, loads, real_envoys, verdicts};
use crate::common::Spctl;

const MARKER: &str = "(func (export \"proxy_abi_version_0_2_1\"))";
const MALLOC: &str = "(func (export \"malloc\") (param i32) (result i32) i32.const 1024)";
const MEMORY: &str = "(memory (export \"memory\") 1)";

/// A whole module with `parts` before it.
fn whole(parts: &str) -> String {
    format!("(module {parts} {MEMORY} {MARKER} {MALLOC})")
}

fn wasi(name: &str, signature: &str) -> String {
    whole(&format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func {signature}))"))
}

fn import(name: &str, signature: &str) -> String {
    whole(&format!("(import \"env\" \"{name}\" (func {signature}))"))
}

fn with(export: &str) -> String {
    format!("(module {MEMORY} {MARKER} {MALLOC} {export})")
}

fn abi(marker: &str, parts: &str) -> String {
    format!("(module {parts} {MEMORY} (func (export \"{marker}\")) {MALLOC})")
}

#[test]
fn envoys_and_the_embedded_host_do_what_inspect_says() {
    let spctl = Spctl::new();
    let cases = [
        ("plain", whole("")),
        // Imports.
        ("unknown import", import("nothing_like_it", "(param i32) (result i32)")),
        ("wrong type", import("proxy_log", "(param i32) (result i32)")),
        ("unknown module", whole("(import \"other\" \"f\" (func))")),
        ("wasm-bindgen", whole("(import \"__wbindgen_placeholder__\" \"__wbindgen_throw\" (func (param i32 i32)))")),
        ("imported global", whole("(import \"env\" \"g\" (global i32))")),
        (
            "imported memory",
            format!("(module (import \"env\" \"memory\" (memory 1)) {MARKER} {MALLOC} (export \"memory\" (memory 0)))"),
        ),
        ("imported table", whole("(import \"env\" \"t\" (table 1 funcref))")),
        ("resolve dns", import("envoy_resolve_dns", "(param i32 i32 i32) (result i32)")),
        ("pthread_equal", import("pthread_equal", "(param i32 i32) (result i32)")),
        ("emscripten", import("emscripten_notify_memory_growth", "(param i32)")),
        ("assemblyscript's abort", import("abort", "(param i32 i32 i32 i32)")),
        ("grpc", import("proxy_grpc_cancel", "(param i32) (result i32)")),
        // WASI, of all Envoys and of newer ones.
        ("fd_write", wasi("fd_write", "(param i32 i32 i32 i32) (result i32)")),
        ("proc_exit", wasi("proc_exit", "(param i32)")),
        ("poll_oneoff", wasi("poll_oneoff", "(param i32 i32 i32 i32) (result i32)")),
        ("clock_res_get", wasi("clock_res_get", "(param i32 i32) (result i32)")),
        ("fd_filestat_get", wasi("fd_filestat_get", "(param i32 i32) (result i32)")),
        ("path_filestat_get", wasi("path_filestat_get", "(param i32 i32 i32 i32 i32) (result i32)")),
        ("fd_readdir", wasi("fd_readdir", "(param i32 i32 i32 i64 i32) (result i32)")),
        ("fd_pwrite", wasi("fd_pwrite", "(param i32 i32 i32 i64 i32) (result i32)")),
        ("sock_send", wasi("sock_send", "(param i32 i32 i32 i32 i32) (result i32)")),
        ("path_link", wasi("path_link", "(param i32 i32 i32 i32 i32 i32 i32) (result i32)")),
        ("path_link of Envoy", wasi("path_link", "(param i32 i32 i32 i32 i32 i32) (result i32)")),
        ("path_symlink", wasi("path_symlink", "(param i32 i32 i32 i32 i32) (result i32)")),
        ("path_symlink of Envoy", wasi("path_symlink", "(param i32 i32 i32 i32) (result i32)")),
        ("proc_raise", wasi("proc_raise", "(param i32) (result i32)")),
        ("wasi_unstable", whole("(import \"wasi_unstable\" \"fd_write\" (func (param i32 i32 i32 i32) (result i32)))")),
        // The ABI's version.
        ("no marker", format!("(module {MEMORY} {MALLOC})")),
        ("marker 0.1.0", abi("proxy_abi_version_0_1_0", "")),
        ("marker 0.2.0", abi("proxy_abi_version_0_2_0", "")),
        ("marker 0.3.0", abi("proxy_abi_version_0_3_0", "")),
        ("two markers", abi("proxy_abi_version_0_3_0", "(func (export \"proxy_abi_version_0_2_0\"))")),
        (
            "marker that is no function",
            format!("(module {MEMORY} {MALLOC} (global (export \"proxy_abi_version_0_2_1\") i32 (i32.const 0)))"),
        ),
        (
            "0.2.0 asks for the log level",
            abi("proxy_abi_version_0_2_0", "(import \"env\" \"proxy_get_log_level\" (func (param i32) (result i32)))"),
        ),
        (
            "0.1.0 asks for its configuration",
            abi(
                "proxy_abi_version_0_1_0",
                "(import \"env\" \"proxy_get_configuration\" (func (param i32 i32) (result i32)))",
            ),
        ),
        ("0.2.1 asks for its configuration", import("proxy_get_configuration", "(param i32 i32) (result i32)")),
        // Exports.
        ("no malloc", format!("(module {MEMORY} {MARKER})")),
        (
            "the other malloc",
            format!(
                "(module {MEMORY} {MARKER} (func (export \"proxy_on_memory_allocate\") (param i32) (result i32) i32.const 1024))"
            ),
        ),
        ("no memory", format!("(module {MARKER} {MALLOC})")),
        ("memory of another name", format!("(module (memory (export \"m\") 1) {MARKER} {MALLOC})")),
        (
            "callback's signature",
            with("(func (export \"proxy_on_request_headers\") (param i32) (result i32) i32.const 0)"),
        ),
        ("callback's result", with("(func (export \"proxy_on_log\") (param i32) (result i32) i32.const 0)")),
        (
            "callback of 0.1.0",
            with("(func (export \"proxy_on_request_headers\") (param i32 i32) (result i32) i32.const 0)"),
        ),
        ("callback that nobody knows", with("(func (export \"proxy_on_something\") (param f64))")),
        ("callback that is a global", with("(global (export \"proxy_on_log\") i32 (i32.const 0))")),
        (
            "malloc's signature",
            format!("(module {MEMORY} {MARKER} (func (export \"malloc\") (param i64) (result i32) i32.const 1024))"),
        ),
        ("main's signature", with("(func (export \"main\") (param i32))")),
        ("start's signature", with("(func (export \"_start\") (param i32))")),
        ("http call's answer", with("(func (export \"proxy_on_http_call_response\") (param i32 i32))")),
        // Memory.
        ("1 GiB of memory", format!("(module (memory (export \"memory\") 16384) {MARKER} {MALLOC})")),
        ("more memory", format!("(module (memory (export \"memory\") 16385) {MARKER} {MALLOC})")),
        ("4 GiB at most", format!("(module (memory (export \"memory\") 1 65536) {MARKER} {MALLOC})")),
        // Proposals.
        ("simd", with("(func (drop (v128.const i64x2 0 0)))")),
        ("tail calls", with("(func $f return_call $f)")),
        ("bulk memory", with("(func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))")),
        ("multi-value", with("(func (result i32 i32) i32.const 0 i32.const 0)")),
        ("relaxed simd", with("(func (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))")),
        ("gc", with("(type $s (struct (field i32))) (func (drop (struct.new $s (i32.const 0))))")),
        ("exceptions", with("(tag $e) (func (block $b (try_table (catch_all $b) (throw $e))))")),
        ("multi-memory", with("(memory 1)")),
        ("memory64", with("(memory i64 1)")),
        ("extended constants", with("(global i32 (i32.add (i32.const 1) (i32.const 2)))")),
        ("function references", with("(type $t (func)) (func (param (ref $t)) (call_ref $t (local.get 0)))")),
        ("shared memory", with("(memory 1 1 shared)")),
    ];
    let mut wrong = Vec::new();
    for (what, text) in cases {
        let bytes = wat::parse_str(&text).unwrap_or_else(|e| panic!("{what}: {e}"));
        let module = spctl.file("case.wasm", bytes);
        wrong.extend(differences(&spctl, what, &module));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_no_module_is_no_result() {
    let spctl = Spctl::new();
    let component = spctl.file("c.wasm", wat::parse_str("(component)").unwrap());
    let cut = spctl.file("cut.wasm", &wat::parse_str(whole("")).unwrap()[..40]);
    let page = spctl.file("page.wasm", "<html>not found</html>");
    for (path, code) in [(&component, "plugin_not_wasm"), (&cut, "plugin_corrupt"), (&page, "plugin_not_wasm")] {
        let error = spctl.error(&["inspect", path.to_str().unwrap()]);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some(code), Some(11)), "{error}");
        for (name, envoy) in real_envoys() {
            assert!(loads(&envoy, path).is_err(), "{name} {}", path.display());
        }
    }
    assert_eq!(spctl.error(&["inspect", "nowhere.wasm"])["code"], "file_unreadable");
}

#[test]
fn a_network_plugin_is_envoys_and_not_the_embedded_hosts() {
    let spctl = Spctl::new();
    let text = with("(func (export \"proxy_on_new_connection\") (param i32) (result i32) i32.const 0)");
    let module = spctl.file("tcp.wasm", wat::parse_str(text).unwrap());
    let inspected = spctl.data(&["inspect", module.to_str().unwrap()]);
    let verdicts = verdicts(&inspected);
    assert!(verdicts["embedded"].as_ref().unwrap().contains("network (TCP) plugin"), "{verdicts:?}");
    for (name, envoy) in real_envoys() {
        assert_eq!((loads(&envoy, &module), &verdicts[&name]), (Ok(()), &None), "{name}");
    }
}

#[test]
fn a_listing_is_text_that_assembles_to_the_same() {
    let spctl = Spctl::new();
    let bytes = wat::parse_str(whole("")).unwrap();
    let module = spctl.file("m.wasm", &bytes);
    let listing = spctl.run(&["inspect", module.to_str().unwrap(), "--wat"]);
    assert!(listing.stdout.contains("(export \"proxy_abi_version_0_2_1\""), "{}", listing.stdout);
    assert_eq!(wat::parse_str(&listing.stdout).unwrap(), bytes);
}
