//! The admin interface, as scripts for Envoy use it.

mod common;

use std::net::SocketAddr;

use common::{Answer, Client, Running, echo, guest, setup, spec};

fn started() -> (Running, SocketAddr) {
    let plugin = guest().request_headers("(i32.const 0)");
    let setup = setup(echo()).filter(spec("plugin", &plugin));
    let running = setup.with(|config| config.admin = Some(SocketAddr::from(([127, 0, 0, 1], 0)))).start();
    let Some(admin) = running.proxy.admin_address() else { panic!("no admin interface") };
    (running, admin)
}

fn ask(admin: SocketAddr, method: &str, path: &str) -> Answer {
    Client::connect(admin).send(format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n")).message()
}

fn get(admin: SocketAddr, path: &str) -> String {
    let answer = ask(admin, "GET", path);
    assert_eq!(answer.status(), 200, "{path}");
    answer.text()
}

#[test]
fn statistics_come_as_text_json_and_for_prometheus() {
    let (running, admin) = started();
    running.client().get("/");
    let text = get(admin, "/stats?filter=ingress.downstream_rq_2xx$");
    assert_eq!(text, "http.ingress.downstream_rq_2xx: 1\n");
    assert!(get(admin, "/stats").contains("cluster.app.upstream_rq_total: 1\n"));
    assert!(get(admin, "/stats").contains("http.ingress.downstream_rq_5xx: 0\n"));
    assert!(!get(admin, "/stats?usedonly").contains("downstream_rq_5xx"));
    let json = get(admin, "/stats?format=json&filter=downstream_rq_2xx");
    assert_eq!(json, r#"{"stats":[{"name":"http.ingress.downstream_rq_2xx","value":1}]}"#);
    let metrics = get(admin, "/stats/prometheus?usedonly");
    let line =
        "envoy_http_downstream_rq_xx{envoy_response_code_class=\"2\",envoy_http_conn_manager_prefix=\"ingress\"} 1\n";
    assert!(metrics.contains(line) && metrics.contains("# TYPE envoy_http_downstream_rq_xx counter\n"), "{metrics}");
    assert_eq!(ask(admin, "GET", "/stats?filter=(").status(), 400);
}

#[test]
fn configuration_names_what_runs() {
    let (running, admin) = started();
    let digest = running.proxy.served_digests()[0].digest.clone();
    let dump = get(admin, "/config_dump?resource=ecds_filters");
    assert!(dump.contains(&digest) && dump.contains("\"name\": \"plugin\""), "{dump}");
    let all = get(admin, "/config_dump");
    for part in ["EcdsConfigDump", "static_clusters", "static_listeners", "static_route_configs", "\"prefix\": \"/\""] {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert_eq!(get(admin, "/listeners"), format!("ingress::{}\n", running.address));
    assert!(get(admin, "/clusters").contains("::health_flags::healthy\n"));
    assert!(get(admin, "/server_info").contains("\"state\": \"LIVE\""));
}

#[test]
fn the_level_of_plugins_is_read_and_changed() {
    let (running, admin) = started();
    let changed = ask(admin, "POST", "/logging?wasm=debug");
    assert_eq!((changed.status(), changed.text().as_str()), (200, "active loggers:\n  wasm: debug\n\n"));
    assert_eq!(running.proxy.log_level(), spctl_proxy::Level::Debug);
    ask(admin, "POST", "/logging?paths=config:debug,wasm:error");
    assert_eq!(running.proxy.log_level(), spctl_proxy::Level::Error);
    for (path, status) in
        [("/logging?wasm=nope", 400), ("/logging?nope=debug", 400), ("/logging", 200), ("/logging?level=info", 200)]
    {
        assert_eq!(ask(admin, "POST", path).status(), status, "{path}");
    }
    let refused = ask(admin, "GET", "/logging");
    assert_eq!((refused.status(), refused.text().as_str()), (405, "Method GET not allowed, POST required."));
}

#[test]
fn draining_listeners_take_no_more_connections() {
    let (running, admin) = started();
    assert_eq!(get(admin, "/ready"), "LIVE\n");
    let mut open = running.client();
    assert_eq!(open.get("/").status(), 200);
    assert_eq!(ask(admin, "POST", "/drain_listeners").text(), "OK\n");
    assert_eq!(ask(admin, "GET", "/ready").status(), 503);
    assert!(std::net::TcpStream::connect(running.address).is_err());
    assert_eq!(open.get("/").status(), 200);
    assert_eq!(ask(admin, "GET", "/nothing").status(), 404);
}
