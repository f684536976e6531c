//! What a module must be, and what is said about one that is not.

mod common;

use std::time::Duration;

use common::{guest, named, refused, refused_bytes, running, sandbox};
use spctl_host::{LoadError, PluginConfig};

#[test]
fn refuses_bytes_that_are_no_module() {
    assert_eq!(refused_bytes(b"#!/bin/sh").error, LoadError::NotWasm);
    assert_eq!(refused_bytes(b"").error, LoadError::NotWasm);
}

#[test]
fn tells_a_component_from_a_module() {
    assert_eq!(refused_bytes(b"\0asm\x0d\0\x01\0").error, LoadError::Component);
}

#[test]
fn tells_a_module_that_was_cut_short() {
    let wasm = guest().wasm();
    for keep in [5, 9, wasm.len() / 2, wasm.len() - 1] {
        let error = refused_bytes(&wasm[..keep]).error;
        assert!(matches!(error, LoadError::Truncated { .. }), "{keep}: {error:?}");
    }
}

#[test]
fn refuses_a_corrupt_module() {
    let mut wasm = guest().wasm();
    let at = wasm.len() / 2;
    wasm[at..at + 8].fill(0xff);
    assert!(matches!(refused_bytes(&wasm).error, LoadError::Corrupt(_)));
}

#[test]
fn refuses_a_module_without_an_abi_marker() {
    assert_eq!(refused(&guest().abi("something_else")).error, LoadError::NoAbi);
    assert_eq!(refused(&guest().abi("proxy_abi_version_0_3_0")).error, LoadError::NoAbi);
}

#[test]
fn a_marker_that_is_no_function_does_not_count() {
    let wasm = wat::parse_str(
        r#"(module (memory (export "memory") 1) (global (export "proxy_abi_version_0_2_1") i32 (i32.const 1)))"#,
    );
    assert_eq!(refused_bytes(&wasm.unwrap()).error, LoadError::NoAbi);
}

#[test]
fn names_every_import_that_cannot_be_had() {
    let wasm = wat::parse_str(
        r#"(module
            (import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))
            (import "env" "proxy_nonsense" (func))
            (import "other" "thing" (func (param i64)))
            (import "env" "a_global" (global i32))
            (import "env" "proxy_done" (func (param i64) (result i32)))
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 8)))"#,
    );
    let LoadError::UnknownImports(names) = refused_bytes(&wasm.unwrap()).error else { panic!() };
    assert_eq!(names[0], "env.proxy_nonsense");
    assert_eq!(names[1], "other.thing");
    assert_eq!(names[2], "env.a_global (a global)");
    assert_eq!(names[3], "env.proxy_done (imported as (i64) -> (i32), provided as () -> (i32))");
}

#[test]
fn links_only_the_functions_of_the_modules_own_abi() {
    let import = |name: &str, args: &str, marker: &'static str| {
        let text = format!(
            r#"(module (import "env" "{name}" (func {args} (result i32))) (memory (export "memory") 1)
            (func (export "{marker}")) (func (export "malloc") (param i32) (result i32) (i32.const 8)))"#
        );
        sandbox().add(&wat::parse_str(text).unwrap(), named("plugin")).map(drop).map_err(|failure| failure.error)
    };
    let (old, middle, new) = ("proxy_abi_version_0_1_0", "proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1");
    for (name, args, fits) in [
        ("proxy_get_log_level", "(param i32)", [false, false, true]),
        ("proxy_continue_stream", "(param i32)", [false, true, true]),
        ("proxy_close_stream", "(param i32)", [false, true, true]),
        ("proxy_continue_request", "", [true, false, false]),
        ("proxy_clear_route_cache", "", [true, false, false]),
        ("proxy_get_configuration", "(param i32 i32)", [true, false, false]),
    ] {
        for (marker, fits) in [old, middle, new].into_iter().zip(fits) {
            assert_eq!(import(name, args, marker).is_ok(), fits, "{name} {marker}");
        }
    }
}

#[test]
fn refuses_callbacks_with_a_wrong_signature() {
    let failure = refused(&guest().on("proxy_on_request_headers", 2, true, "(i32.const 0)"));
    assert_eq!(failure.error, LoadError::BadSignatures(vec!["proxy_on_request_headers (i32, i32) -> (i32)".into()]));
    // What 0.2 refuses is right in 0.1.
    let old = guest().abi("proxy_abi_version_0_1_0").on("proxy_on_request_headers", 2, true, "(i32.const 0)");
    running(&old);
}

#[test]
fn refuses_a_network_plugin_by_name() {
    let failure = refused(&guest().on("proxy_on_downstream_data", 3, true, "(i32.const 0)"));
    assert_eq!(failure.error, LoadError::NetworkPlugin { export: "proxy_on_downstream_data".into() });
}

#[test]
fn refuses_a_module_without_an_allocator() {
    let wasm = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")))"#);
    assert_eq!(refused_bytes(&wasm.unwrap()).error, LoadError::NoAllocator);
}

#[test]
fn takes_the_allocator_by_its_other_name_too() {
    let wasm = wat::parse_str(
        r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 8)))"#,
    );
    sandbox().add(&wasm.unwrap(), named("plugin")).unwrap();
}

#[test]
fn makes_the_memory_that_a_module_imports() {
    let wasm = wat::parse_str(
        r#"(module (import "env" "memory" (memory 1)) (import "env" "table" (table 3 funcref))
            (export "memory" (memory 0))
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 8)))"#,
    );
    sandbox().add(&wasm.unwrap(), named("plugin")).unwrap();
}

#[test]
fn start_functions_run_in_order_and_may_only_log() {
    let reactor = guest()
        .with("(func (export \"_initialize\") (call $say `initialize`))")
        .with("(func (export \"main\") (param i32 i32) (result i32) (call $say `main`) (i32.const 0))")
        .with("(func (export \"_start\") (call $say `start`))");
    let sandbox = sandbox();
    sandbox.add(&reactor.wasm(), named("plugin")).unwrap();
    // Base, canary, worker.
    assert_eq!(sandbox.take_log(), ["initialize", "main"].repeat(3));

    let forbidden = guest().with("(func (export \"_start\") (drop (call $tick (i32.const 5))))");
    let LoadError::Trapped { function, message } = refused(&forbidden).error else { panic!() };
    assert_eq!(function, "_start");
    assert!(message.contains("env.proxy_set_tick_period_milliseconds"), "{message}");
}

#[test]
fn a_refusal_carries_the_plugins_own_last_lines() {
    let failure = refused(&guest().configure("(call $say `my configuration is wrong`) (i32.const 0)"));
    assert_eq!(failure.error, LoadError::RefusedToConfigure);
    let said: Vec<&str> = failure.log.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(
        said,
        [
            "my configuration is wrong",
            "Wasm VM failed Failed to configure base Wasm plugin",
            "Plugin plugin failed to load",
            "Plugin configured to fail closed failed to load",
        ]
    );
    let refused_start = refused(&guest().on("proxy_on_vm_start", 2, true, "(i32.const 0)"));
    assert_eq!(refused_start.error, LoadError::RefusedToStart);
}

#[test]
fn a_trap_at_the_start_names_the_function() {
    let failure = refused(&guest().configure("unreachable"));
    let LoadError::Trapped { function, message } = failure.error else { panic!() };
    assert_eq!((function.as_str(), message.as_str()), ("proxy_on_configure", "Uncaught RuntimeError: unreachable"));
}

#[test]
fn an_endless_loop_ends_at_the_deadline_and_says_how_long_envoy_would_have_hung() {
    let failure = refused(&guest().configure("(loop $l (br $l)) (i32.const 1)"));
    let blocked = Duration::from_millis(200);
    assert_eq!(failure.error, LoadError::Deadline { function: "proxy_on_configure".into(), blocked });
    assert!(failure.error.to_string().contains("blocked an Envoy worker for at least 200 ms"));
}

#[test]
fn configurations_are_readable_when_envoy_has_them_readable() {
    let read = |which: u32| {
        format!(
            "(call $num (call $body (i32.const {which}) (i32.const 0) (i32.const 100) (i32.const 0) (i32.const 4))) (call $out)"
        )
    };
    let probe = guest()
        .on("proxy_on_context_create", 2, false, &read(7))
        .on("proxy_on_vm_start", 2, true, &format!("(call $num (local.get $a)) {} {} (i32.const 1)", read(6), read(7)))
        .configure(&format!("(call $num (local.get $a)) {} (i32.const 1)", read(7)));
    let sandbox = sandbox();
    let config = PluginConfig {
        configuration: "for the plugin".into(),
        vm_configuration: "for the vm".into(),
        ..named("plugin")
    };
    sandbox.add(&probe.wasm(), config).unwrap();
    let log = sandbox.take_log();
    let once = ["0", "for the plugin", "10", "0", "for the vm", "1", "for the vm", "14", "0", "for the plugin"];
    assert_eq!(log, once.repeat(2));
}

#[test]
fn counts_virtual_machines_as_envoy_does() {
    let sandbox = running(&guest());
    let stat = |name: &str| {
        let stats = sandbox.process().stats().snapshot();
        stats.into_iter().find(|stat| stat.name == name).map(|stat| stat.value)
    };
    use spctl_host::StatValue::{Counter, Gauge};
    assert_eq!(stat("wasm.envoy.wasm.runtime.v8.created"), Some(Counter(3)));
    assert_eq!(stat("wasm.envoy.wasm.runtime.v8.active"), Some(Gauge(2)));
}
