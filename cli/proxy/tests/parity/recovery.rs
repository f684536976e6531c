//! Retries, timeouts and changes of protocol.

use std::time::Duration;

use spctl_proxy::{ProxyConfig, RetryOn, RetryPolicy, Route, RouteUpgrade};

use super::wire::{Case, Pair};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

fn route(prefix: &str, cluster: &str, change: impl FnOnce(&mut Route)) -> Route {
    let mut route = Route::new(prefix, cluster);
    change(&mut route);
    route
}

fn first(config: &mut ProxyConfig, routes: Vec<Route>) {
    let rest = std::mem::replace(&mut config.listeners[0].virtual_hosts[0].routes, routes);
    config.listeners[0].virtual_hosts[0].routes.extend(rest);
}

/// A cluster nobody listens for.
fn dead(config: &mut ProxyConfig) {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.clusters.push(spctl_proxy::Cluster::new("dead", vec![nobody.to_string()]));
}

fn all(routes: &str) -> String {
    format!(
        "{{name: local, virtual_hosts: [{{name: all, domains: [\"*\"], routes: [{routes} {{match: {{prefix: \"/\"}}, route: {{cluster: app}}}}]}}]}}"
    )
}

pub(crate) fn retries() {
    let policy = |on: &[RetryOn], num_retries| {
        Some(RetryPolicy { on: on.to_vec(), num_retries, retriable_status_codes: vec![418], ..RetryPolicy::default() })
    };
    let yaml = |path: &str, cluster: &str, on: &str, count: u32| {
        format!(
            "{{match: {{prefix: {path}}}, route: {{cluster: {cluster}, retry_policy: {{retry_on: \"{on}\", num_retries: {count}, retriable_status_codes: [418]}}}}}},"
        )
    };
    let routes = [
        yaml("/5xx", "app", "5xx", 2),
        yaml("/gateway", "app", "gateway-error", 1),
        yaml("/reset", "app", "reset", 1),
        yaml("/connect", "dead", "connect-failure", 1),
        yaml("/codes", "app", "retriable-status-codes", 1),
        yaml("/4xx", "app", "retriable-4xx", 1),
    ];
    let pair = Pair::with_routes("", &all(&routes.concat()), |config| {
        dead(config);
        let routes = vec![
            route("/5xx", "app", |route| route.retry = policy(&[RetryOn::ServerError], 2)),
            route("/gateway", "app", |route| route.retry = policy(&[RetryOn::GatewayError], 1)),
            route("/reset", "app", |route| route.retry = policy(&[RetryOn::Reset], 1)),
            route("/connect", "dead", |route| route.retry = policy(&[RetryOn::ConnectFailure], 1)),
            route("/codes", "app", |route| route.retry = policy(&[RetryOn::RetriableStatusCodes], 1)),
            route("/4xx", "app", |route| route.retry = policy(&[RetryOn::Retriable4xx], 1)),
        ];
        first(config, routes);
    });
    let answer = |code: u16| format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\n\r\n");
    let case = |name: &str, path: &str, status: u16, answer: String| {
        Case::new(name, get(path), [status]).answer(answer).watch(500)
    };
    let posted = "POST /5xx HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n";
    pair.compare([
        case("503, twice more", "/5xx", 503, answer(503)),
        case("500, twice more", "/5xx", 500, answer(500)),
        case("closed, twice more", "/5xx", 503, "!".to_owned()),
        case("404, no more", "/5xx", 404, answer(404)),
        case("502 at a gateway", "/gateway", 502, answer(502)),
        case("500 at a gateway", "/gateway", 500, answer(500)),
        case("closed at a gateway", "/gateway", 503, "!".to_owned()),
        case("closed where resets count", "/reset", 503, "!".to_owned()),
        case("503 where resets count", "/reset", 503, answer(503)),
        case("nobody there", "/connect", 503, String::new()),
        case("a code of the list", "/codes", 418, answer(418)),
        case("a code not of the list", "/codes", 503, answer(503)),
        case("a conflict", "/4xx", 409, answer(409)),
        case("a policy of the client's own", "/", 503, answer(503)),
        Case::new("with a body", posted, [503]).then("hi").answer(answer(503)).watch(500),
        Case::new("headers of the client", "GET / HTTP/1.1\r\nHost: h\r\nx-envoy-retry-on: 5xx\r\n\r\n", [503])
            .answer(answer(503))
            .watch(300),
    ]);
}

pub(crate) fn timeouts() {
    let routes = "{match: {prefix: /short}, route: {cluster: app, timeout: 0.2s}}, \
        {match: {prefix: /tries}, route: {cluster: app, timeout: 2s, retry_policy: {retry_on: reset, num_retries: 1, per_try_timeout: 0.15s}}}, \
        {match: {prefix: /try}, route: {cluster: app, timeout: 2s, retry_policy: {retry_on: connect-failure, num_retries: 1, per_try_timeout: 0.15s}}}, \
        {match: {prefix: /idle}, route: {cluster: app, timeout: 0s, idle_timeout: 0.2s}},";
    let manager = "stream_idle_timeout: 0.6s, request_headers_timeout: 0.3s, request_timeout: 0.4s, \
        common_http_protocol_options: {idle_timeout: 0.7s},";
    let millis = Duration::from_millis;
    let pair = Pair::with_routes(manager, &all(routes), |config| {
        let listener = &mut config.listeners[0];
        listener.stream_idle_timeout = millis(600);
        listener.request_headers_timeout = millis(300);
        listener.request_timeout = millis(400);
        listener.idle_timeout = millis(700);
        let per_try = |on| RetryPolicy { on: vec![on], per_try_timeout: millis(150), ..RetryPolicy::default() };
        let routes = vec![
            route("/short", "app", |route| route.timeout = millis(200)),
            route("/tries", "app", |route| {
                route.timeout = millis(2000);
                route.retry = Some(per_try(RetryOn::Reset));
            }),
            route("/try", "app", |route| {
                route.timeout = millis(2000);
                route.retry = Some(per_try(RetryOn::ConnectFailure));
            }),
            route("/idle", "app", |route| {
                route.timeout = Duration::ZERO;
                route.idle_timeout = Some(millis(200));
            }),
        ];
        first(config, routes);
    });
    let body = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhi");
    pair.compare([
        Case::new("no answer in time", get("/short"), [504]).answer("").watch(500),
        Case::new("an answer that does not end in time", get("/short"), [200])
            .answer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok")
            .watch(1500),
        Case::new("no try in time", get("/tries"), [504]).answer("").watch(800),
        Case::new("no try in time, and no other", get("/try"), [504]).answer("").watch(500),
        Case::new("a route's own idleness", get("/idle"), [504]).answer("").watch(500),
        Case::new("idle while answered", get("/"), [200])
            .answer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok")
            .watch(2000),
        Case::new("a slow head", "GET / HTTP/1.1\r\nHo", [408]).watch(600),
        Case::new("a slow body", body("/"), [408]).watch(800),
        Case::new("no request at all", "", []).watch(1200),
        Case::new("no second request", get("/"), [200]).watch(1200),
        Case::new("no second request, later", get("/"), [200]).watch(6200),
        Case::new("no second request, and gone", get("/"), [200]).watch(7200),
    ]);
}

pub(crate) fn upgrades() {
    let routes = "{match: {prefix: /no}, route: {cluster: app, upgrade_configs: [{upgrade_type: websocket, enabled: false}]}}, \
        {match: {prefix: /other}, route: {cluster: app, upgrade_configs: [{upgrade_type: other}]}},";
    let pair = Pair::with_routes("upgrade_configs: [{upgrade_type: websocket}],", &all(routes), |config| {
        config.listeners[0].upgrades = vec!["websocket".into()];
        let upgrade = |name: &str, enabled| vec![RouteUpgrade { name: name.to_owned(), enabled }];
        let routes = vec![
            route("/no", "app", |route| route.upgrades = upgrade("websocket", false)),
            route("/other", "app", |route| route.upgrades = upgrade("other", true)),
        ];
        first(config, routes);
    });
    let ask = |path: &str, name: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {name}\r\n{more}\r\n")
    };
    const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    pair.compare([
        Case::new("a yes", ask("/", "websocket", "Sec-WebSocket-Key: k\r\n"), [101])
            .answer(YES)
            .then("ping")
            .then("GET / pong"),
        Case::new("a yes with data behind", ask("/", "WebSocket", ""), [101])
            .answer(format!("{YES}hello"))
            .then("ping"),
        Case::new("data ahead of the yes", ask("/", "websocket", "") + "early", [101]).answer(YES),
        Case::new("a yes and an end", ask("/", "websocket", ""), [101]).answer(format!("!{YES}bye")).watch(1500),
        Case::new("a no", ask("/", "websocket", ""), [404]).answer("HTTP/1.1 404 no\r\ncontent-length: 2\r\n\r\nno"),
        Case::new("not on this route", ask("/no", "websocket", ""), [403]),
        Case::new("on this route alone", ask("/other", "other", ""), [101]).answer(YES.replace("websocket", "other")),
        Case::new("not what is allowed", ask("/", "other", ""), [403]),
    ]);
}
