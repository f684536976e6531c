//! What outlives a call: shared data, queues, metrics, properties, levels.

mod common;

use common::{guest, named, running, running_as, sandbox};
use spctl_host::{Level, PluginConfig, Side, StatValue};

fn get(key: &str) -> String {
    format!("(call $num (call $get_data `{key}` (i32.const 0) (i32.const 4) (i32.const 8)))")
}

fn set(key: &str, value: &str, cas: &str) -> String {
    format!("(call $num (call $set_data `{key}` `{value}` {cas}))")
}

#[test]
fn shared_data_is_compared_and_swapped() {
    let cas = "(i32.load (i32.const 8))";
    let body = [
        get("key"),
        set("key", "absent ignores this", "(i32.const 77)"),
        get("key"),
        "(call $out)".into(),
        set("key", "fits", cas),
        set("key", "no longer fits", cas),
        set("key", "zero always fits", "(i32.const 0)"),
        get("key"),
        "(call $out)".into(),
        set("key", "", "(i32.const 0)"),
        get("key"),
        "(call $num (i32.load (i32.const 4)))".into(),
        "(i32.const 0)".into(),
    ];
    let sandbox = running(&guest().request_headers(&body.concat()));
    sandbox.stream().request(&[], true);
    let expected = ["1", "0", "0", "absent ignores this", "0", "8", "0", "0", "zero always fits", "0", "0", "0"];
    assert_eq!(sandbox.take_log(), expected);
}

#[test]
fn shared_data_belongs_to_a_vm_id_and_goes_with_its_last_plugin() {
    let sandbox = sandbox();
    let writer = guest().configure(&format!("{} (i32.const 1)", set("key", "value", "(i32.const 0)")));
    let reader = guest().configure(&format!("{} (i32.const 1)", get("key")));
    let config = |vm_id: &str| PluginConfig { vm_id: vm_id.into(), ..named("plugin") };
    sandbox.add(&writer.wasm(), config("a")).unwrap();
    sandbox.add(&reader.wasm(), config("b")).unwrap();
    sandbox.add(&reader.wasm(), config("a")).unwrap();
    assert_eq!(sandbox.take_log(), ["0", "0", "1", "1", "0", "0"]);
    sandbox.clear();
    sandbox.run();
    sandbox.add(&reader.wasm(), config("a")).unwrap();
    assert_eq!(sandbox.take_log(), ["1", "1"]);
}

#[test]
fn queues_are_found_by_vm_id_and_name_and_tell_their_last_reader() {
    let register = "(call $num (call $register `queue` (i32.const 8))) (call $num (i32.load (i32.const 8)))";
    let resolve = |vm: &str, name: &str| format!("(call $num (call $resolve `{vm}` `{name}` (i32.const 8)))");
    let dequeue = |token: u32| format!("(call $num (call $dequeue (i32.const {token}) (i32.const 0) (i32.const 4)))");
    let body = [
        resolve("vm", "queue"),
        register.into(),
        register.into(),
        resolve("", "queue"),
        resolve("vm", "queue"),
        resolve("other", "queue"),
        dequeue(1),
        "(call $num (call $enqueue (i32.const 1) `item`)) (call $num (call $enqueue (i32.const 9) `item`))".into(),
        dequeue(9),
        "(i32.const 0)".into(),
    ];
    let ready =
        format!("(call $num (local.get $ctx)) (call $num (local.get $a)) {} (call $out) {}", dequeue(1), dequeue(1));
    let sandbox = running(&guest().request_headers(&body.concat()).on("proxy_on_queue_ready", 2, false, &ready));
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["1", "0", "1", "0", "1", "0", "0", "1", "7", "0", "1", "1"]);
    sandbox.run();
    assert_eq!(sandbox.take_log(), ["1", "1", "0", "item", "7"]);
}

#[test]
fn metrics_count_under_envoys_names_and_rules() {
    let define = |kind: u32, name: &str| {
        format!(
            "(call $num (call $define (i32.const {kind}) `{name}` (i32.const 8))) (call $num (i32.load (i32.const 8)))"
        )
    };
    let moves = r#"(import "env" "proxy_increment_metric" (func $inc (param i32 i64) (result i32)))
        (import "env" "proxy_record_metric" (func $rec (param i32 i64) (result i32)))"#;
    let inc = |id: u32, by: i64| format!("(call $num (call $inc (i32.const {id}) (i64.const {by})))");
    let rec = |id: u32, to: i64| format!("(call $num (call $rec (i32.const {id}) (i64.const {to})))");
    let read = |id: u32| format!("(call $num (call $metric (i32.const {id}) (i32.const 0)))");
    let body = [
        define(0, "hits"),
        define(1, "level"),
        define(2, "sizes"),
        "(call $num (call $define (i32.const 3) `x` (i32.const 8)))".into(),
        define(0, "hits"),
        inc(4, 5),
        inc(8, 2),
        inc(4, -1),
        inc(4, 0),
        inc(5, 7),
        inc(5, -3),
        rec(5, 40),
        inc(5, -2),
        inc(6, 1),
        rec(6, 123),
        read(4),
        read(6),
        read(96),
        inc(96, 1),
        read(99),
        "(i32.const 0)".into(),
    ];
    // Imports come first in a module, which the builder's own are already.
    let wat = guest().request_headers(&body.concat()).wat().replacen("(import", &format!("{moves}(import"), 1);
    let sandbox = sandbox();
    sandbox.add(&wat::parse_str(wat).unwrap(), named("plugin")).unwrap();
    sandbox.take_log();
    sandbox.stream().request(&[], true);
    let expected = "0 4 0 5 0 6 2 0 8 0 0 2 2 0 0 0 0 2 0 0 2 1 1 2";
    assert_eq!(sandbox.take_log(), expected.split(' ').collect::<Vec<_>>());
    let stats = sandbox.process().stats().snapshot();
    let value = |name: &str| stats.iter().find(|stat| stat.name == name).map(|stat| stat.value.clone());
    assert_eq!(value("wasmcustom.hits"), Some(StatValue::Counter(7)));
    assert_eq!(value("wasmcustom.level"), Some(StatValue::Gauge(38)));
    let Some(StatValue::Histogram(sizes)) = value("wasmcustom.sizes") else { panic!() };
    assert_eq!((sizes.count, sizes.sum), (1, 124.8));
}

fn property(path: &str) -> String {
    let path = path.replace('/', "\0");
    format!("(call $num (call $property `{path}` (i32.const 0) (i32.const 4)))")
}

#[test]
fn properties_of_the_request_are_there_only_with_its_headers() {
    let probe = format!("{}{}{}", property("request/path"), property("request/headers"), property("request/protocol"));
    let sandbox = running(
        &guest()
            .request_headers(&format!("{probe} (i32.const 0)"))
            .request_body(&format!("{probe} (call $num (i32.load8_u (i32.load (i32.const 0)))) (i32.const 0)")),
    );
    sandbox.stream().request(&[], false).data(Side::Request, "x", true);
    let log = sandbox.take_log();
    assert_eq!(log, ["0", "0", "0", "1", "0", "0", "72"]);
}

#[test]
fn properties_have_envoys_values() {
    let body: String = [
        "request/path",
        "request/url_path",
        "request/query",
        "request/host",
        "xds/route_name",
        "xds/cluster_name",
        "xds/node/id",
        "plugin_name",
        "plugin_root_id",
        "plugin_vm_id",
        "request/headers/x",
    ]
    .iter()
    .map(|path| format!("{} (call $out)", property(path)))
    .collect();
    let sandbox = running(&guest().request_headers(&format!("{body} (i32.const 0)")));
    sandbox.stream().request(&[("x", "1"), ("x", "2")], true);
    let log = sandbox.take_log();
    let values: Vec<&str> = log.chunks(2).map(|pair| pair[1].as_str()).collect();
    assert!(log.iter().step_by(2).all(|status| status == "0"));
    assert_eq!(values, ["/", "/", "", "host", "route", "app", "node", "plugin", "root", "vm", "1,2"]);
}

#[test]
fn properties_that_are_gone_or_never_were_are_not_found() {
    let paths = ["node", "cluster_name", "route_name", "nothing", "request/nothing", "request/path/x", "response/code"];
    let body: String = paths.iter().map(|path| property(path)).collect();
    let whole = ["request", "connection", "xds", "filter_state"].map(property).concat();
    let sandbox = running(&guest().request_headers(&format!(
        "{body} {whole} (call $num (call $property `` (i32.const 0) (i32.const 4))) (i32.const 0)"
    )));
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["1", "1", "1", "1", "1", "1", "1", "3", "3", "3", "3", "3"]);
}

#[test]
fn a_property_that_a_filter_sets_is_read_by_the_next() {
    let sandbox = sandbox();
    let first = guest().request_headers("(call $num (call $set_property `mine` `value`)) (i32.const 0)");
    let second = guest().request_headers(&format!(
        "{}(call $out){}(call $out) (i32.const 0)",
        property("mine"),
        property("filter_state/wasm.mine")
    ));
    sandbox.add(&first.wasm(), PluginConfig { vm_id: "a".into(), ..named("first") }).unwrap();
    sandbox.add(&second.wasm(), PluginConfig { vm_id: "b".into(), ..named("second") }).unwrap();
    sandbox.take_log();
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["0", "0", "value", "0", "value"]);
}

#[test]
fn a_root_context_has_no_stream_to_set_properties_on() {
    let sandbox = running_as(
        &guest().on(
            "proxy_on_done",
            1,
            true,
            &format!("(call $num (call $set_property `a` `b`)) {} (i32.const 1)", property("request/path")),
        ),
        named("plugin"),
    );
    sandbox.clear();
    sandbox.run();
    assert_eq!(sandbox.take_log(), ["1", "1"]);
}

#[test]
fn foreign_functions_compress_and_refuse_by_name() {
    let call = |name: &str, arguments: &str| {
        format!("(call $num (call $foreign `{name}` {arguments} (i32.const 8) (i32.const 12)))")
    };
    let body = [
        call("compress", "`aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa`"),
        call("uncompress", "(i32.load (i32.const 8)) (i32.load (i32.const 12))"),
        "(call $say (i32.load (i32.const 8)) (i32.load (i32.const 12)))".into(),
        call("uncompress", "`not compressed`"),
        call("clear_route_cache", "``"),
        call("no_such_function", "``"),
        "(i32.const 0)".into(),
    ];
    let sandbox = running(&guest().request_headers(&body.concat()));
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["0", "0", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "3", "0", "1"]);
}

#[test]
fn guests_see_the_hosts_log_level_and_lines_below_it_are_dropped() {
    let body = "(call $num (call $log_level (i32.const 8))) (call $num (i32.load (i32.const 8)))
        (drop (call $log (i32.const 1) `debug`)) (call $num (call $log (i32.const 6) `off is no level`)) (i32.const 0)";
    let sandbox = running(&guest().request_headers(body));
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["0", "0", "debug", "2"]);
    sandbox.process().set_log_level(Level::Info);
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["0", "2", "2"]);
}

#[test]
fn lines_are_worded_as_envoy_words_them() {
    let sandbox = sandbox();
    let says =
        guest().configure("(call $say `root`) (i32.const 1)").request_headers("(call $say `stream`) (i32.const 0)");
    sandbox.add(&says.wasm(), named("plugin")).unwrap();
    sandbox.stream().request(&[], true);
    let lines: Vec<_> = sandbox.take_lines().iter().map(spctl_host::LogLine::envoy_message).collect();
    assert_eq!(lines, ["wasm log root vm: root", "wasm log root vm: root", "wasm log plugin root vm: stream"]);
}

#[test]
fn standard_output_is_the_log_and_the_environment_is_the_configured_one() {
    let wasm = wat::parse_str(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 2)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 4096))
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
                (drop (call $sizes (i32.const 0) (i32.const 4)))
                (drop (call $environ (i32.const 100) (i32.const 200)))
                ;; One vector: the environment's only entry, a line end in place of its NUL.
                (i32.store8 (i32.const 203) (i32.const 10))
                (i32.store (i32.const 16) (i32.load (i32.const 100)))
                (i32.store (i32.const 20) (i32.load (i32.const 4)))
                (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))
                (if (i32.ne (call $random (i32.const 0) (i32.const 65537)) (i32.const 28)) (then unreachable))
                (if (i32.ne (call $write (i32.const 3) (i32.const 16) (i32.const 1) (i32.const 24)) (i32.const 8)) (then unreachable))
                (if (i32.ne (call $write (i32.const 1) (i32.const -8) (i32.const 1) (i32.const 24)) (i32.const 21)) (then unreachable))
                (call $exit (i32.const 1))
                (i32.const 1)))"#,
    );
    let sandbox = sandbox();
    let config = PluginConfig { environment: vec![("A".into(), "b".into())], ..named("plugin") };
    sandbox.add(&wasm.unwrap(), config).unwrap();
    assert_eq!(sandbox.take_log(), ["A=b", "A=b"]);
}
