//! Virtual hosts, matching, rewriting, redirects, and headers on the way.

use spctl_proxy::{
    Answer, EscapedSlashes, HeaderAction, HeaderChanges, HeaderMatch, HeaderToAdd, HostRewrite, PathRewrite, PathRules,
    QueryMatch, Redirect, Route, RouteMatch, TextMatch, VirtualHost,
};

use super::wire::{Case, Pair};

const YAML: &str = r#"{name: local,
 request_headers_to_add: [{header: {key: x-rc, value: rc}}],
 response_headers_to_add: [{header: {key: x-rc-resp, value: "rc %REQ(:path)%"}}],
 virtual_hosts: [{name: a, domains: ["a.test", "*.b.test", "c.*"], include_request_attempt_count: true, include_attempt_count_in_response: true,
  request_headers_to_add: [{header: {key: x-vh, value: vh}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}],
  request_headers_to_remove: [x-remove],
  routes: [
   {match: {path_separated_prefix: "/sep"}, direct_response: {status: 299, body: {inline_string: sep}}},
   {match: {prefix: "/redir"}, redirect: {path_redirect: "/new", response_code: FOUND}},
   {match: {prefix: "/https"}, redirect: {https_redirect: true}},
   {match: {prefix: "/host"}, redirect: {host_redirect: other.test, strip_query: true}},
   {match: {prefix: "/port"}, redirect: {port_redirect: 8443}},
   {match: {prefix: "/prefixr"}, redirect: {prefix_rewrite: "/pr"}},
   {match: {prefix: "/direct"}, direct_response: {status: 200, body: {inline_string: hello}}, response_headers_to_add: [{header: {key: x-d, value: d}}]},
   {match: {safe_regex: {regex: "/re/[0-9]+"}}, route: {cluster: app, regex_rewrite: {pattern: {regex: "^/re/([0-9]+)"}, substitution: "/num/\\1"}, host_rewrite_literal: lit.test}},
   {match: {path: "/exact"}, route: {cluster: app, prefix_rewrite: "/whole"}},
   {match: {prefix: "/api/"}, route: {cluster: app, prefix_rewrite: "/v1/"}},
   {match: {prefix: "/", headers: [{name: x-k, string_match: {exact: v}}], query_parameters: [{name: q, string_match: {exact: "1"}}]}, direct_response: {status: 201}},
   {match: {prefix: "/", headers: [{name: x-no, present_match: true, invert_match: true}, {name: x-p, string_match: {prefix: pre}}]}, direct_response: {status: 202}},
   {match: {prefix: "/weighted"}, route: {weighted_clusters: {clusters: [{name: app, weight: 1}, {name: dead, weight: 0}]}}},
   {match: {connect_matcher: {}}, route: {cluster: app}},
   {match: {prefix: "/"}, route: {cluster: app}, request_headers_to_add: [{header: {key: x-r, value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %PROTOCOL%"}}], response_headers_to_remove: [x-up]}]}]}"#;

/// Why a case differs.
const BARE: &str = "what is refused before the filters has no headers of its route";

fn header(name: &str, value: &str, action: HeaderAction) -> HeaderToAdd {
    HeaderToAdd { name: name.into(), value: value.into(), action }
}

fn append(name: &str, value: &str) -> Vec<HeaderToAdd> {
    vec![header(name, value, HeaderAction::default())]
}

fn route(prefix: &str, change: impl FnOnce(&mut Route)) -> Route {
    let mut route = Route::new(prefix, "app");
    change(&mut route);
    route
}

fn answers(prefix: &str, answer: Answer) -> Route {
    route(prefix, |route| route.answer = Some(answer))
}

fn direct(status: u16, body: &str) -> Answer {
    Answer::Direct { status, body: body.into() }
}

fn exact(name: &str, value: &str) -> HeaderMatch {
    HeaderMatch { name: name.into(), value: Some(TextMatch::Exact(value.into())), invert: false }
}

fn virtual_host() -> VirtualHost {
    let to = |redirect: Redirect| Answer::Redirect(redirect);
    let routes = vec![
        route("", |route| {
            route.matches = RouteMatch::PathSeparatedPrefix("/sep".into());
            route.answer = Some(direct(299, "sep"));
        }),
        answers("/redir", to(Redirect { path: Some("/new".into()), status: 302, ..Redirect::default() })),
        answers("/https", to(Redirect { scheme: Some("https".into()), ..Redirect::default() })),
        answers("/host", to(Redirect { host: Some("other.test".into()), strip_query: true, ..Redirect::default() })),
        answers("/port", to(Redirect { port: Some(8443), ..Redirect::default() })),
        answers("/prefixr", to(Redirect { path_rewrite: PathRewrite::Prefix("/pr".into()), ..Redirect::default() })),
        route("/direct", |route| {
            route.answer = Some(direct(200, "hello"));
            route.headers.response_add = append("x-d", "d");
        }),
        route("", |route| {
            route.matches = RouteMatch::Regex("/re/[0-9]+".into());
            route.path_rewrite =
                PathRewrite::Regex { pattern: "^/re/([0-9]+)".into(), substitution: "/num/\\1".into() };
            route.host_rewrite = HostRewrite::Literal("lit.test".into());
        }),
        route("", |route| {
            route.matches = RouteMatch::Path("/exact".into());
            route.path_rewrite = PathRewrite::Prefix("/whole".into());
        }),
        route("/api/", |route| route.path_rewrite = PathRewrite::Prefix("/v1/".into())),
        route("/", |route| {
            route.match_headers = vec![exact("x-k", "v")];
            route.match_query = vec![QueryMatch { name: "q".into(), value: Some(TextMatch::Exact("1".into())) }];
            route.answer = Some(direct(201, ""));
        }),
        route("/", |route| {
            let absent = HeaderMatch { name: "x-no".into(), value: None, invert: true };
            let begins = HeaderMatch { value: Some(TextMatch::Prefix("pre".into())), ..exact("x-p", "") };
            route.match_headers = vec![absent, begins];
            route.answer = Some(direct(202, ""));
        }),
        route("/weighted", |route| route.weighted_clusters = vec![("app".into(), 1)]),
        route("", |route| route.matches = RouteMatch::Connect),
        route("/", |route| {
            route.headers.request_add = append("x-r", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %PROTOCOL%");
            route.headers.response_remove = vec!["x-up".into()];
        }),
    ];
    VirtualHost {
        name: "a".into(),
        domains: ["a.test", "*.b.test", "c.*"].map(str::to_owned).to_vec(),
        routes,
        headers: HeaderChanges {
            request_add: vec![header("x-vh", "vh", HeaderAction::OverwriteIfExistsOrAdd)],
            request_remove: vec!["x-remove".into()],
            ..HeaderChanges::default()
        },
        include_request_attempt_count: true,
        include_attempt_count_in_response: true,
        ..VirtualHost::default()
    }
}

fn pair(manager: &str, change: impl FnOnce(&mut spctl_proxy::Listener)) -> Pair {
    Pair::with_routes(manager, &YAML.replace('\n', ""), |config| {
        let listener = &mut config.listeners[0];
        listener.virtual_hosts = vec![virtual_host()];
        listener.headers.request_add = append("x-rc", "rc");
        listener.headers.response_add = append("x-rc-resp", "rc %REQ(:path)%");
        change(listener);
    })
}

fn ask(path: &str, host: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")
}

pub(crate) fn matching() {
    let mut cases: Vec<Case> = [
        ("a.test", 200),
        ("q.b.test", 200),
        (".b.test", 404),
        ("c.whatever", 200),
        ("A.TEST", 200),
        ("a.test:80", 404),
        ("zzz", 404),
    ]
    .into_iter()
    .map(|(host, status)| Case::new(host, ask("/x", host, "x-remove: 1\r\nx-vh: mine\r\n"), [status]))
    .collect();
    for (path, status) in [
        ("/sep", 299),
        ("/sep/x", 299),
        ("/sep?x", 299),
        ("/sepx", 200),
        ("/redir?x=1", 302),
        ("/https/a?b", 301),
        ("/host/a?b=1", 301),
        ("/port/a?b=1", 301),
        ("/prefixr/z?y=1", 301),
        ("/direct", 200),
        ("/re/12?q=1", 200),
        ("/re/x", 200),
        ("/exact?q", 200),
        ("/exactly", 200),
        ("/api/x?y", 200),
        ("/weighted", 200),
    ] {
        cases.push(Case::new(path, ask(path, "a.test", ""), [status]));
    }
    for (name, path, headers, status) in [
        ("header and query", "/z?a&q=1", "x-k: v\r\n", 201),
        ("another query", "/z?q=2", "x-k: v\r\n", 200),
        ("a header that is not to be there", "/z", "x-no: 1\r\nx-p: prefix\r\n", 200),
        ("a header that begins", "/z", "x-p: prefix\r\n", 202),
    ] {
        cases.push(Case::new(name, ask(path, "a.test", headers), [status]));
    }
    let response = "HTTP/1.1 200 OK\r\nx-up: 1\r\nx-rc-resp: orig\r\ncontent-length: 0\r\n\r\n";
    cases.push(Case::new("headers of the response", ask("/x", "a.test", ""), [200]).answer(response));
    cases.push(Case::new("closed upstream", ask("/x", "a.test", ""), [503]).answer("!"));
    cases.push(Case::new("a tunnel that is not allowed", "CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n", [404]));
    cases.push(Case::new("the same for its host", "CONNECT c.x:80 HTTP/1.1\r\nHost: a\r\n\r\n", [403]).differs(BARE));
    pair("", |_| {}).compare(cases);
}

pub(crate) fn origins() {
    let given = "x-forwarded-for: 9.9.9.9\r\nx-forwarded-proto: https\r\nx-envoy-retry-on: 5xx\r\nx-envoy-foo: 1\r\n\
        x-envoy-internal: true\r\nx-envoy-original-path: /q\r\nx-request-id: abc\r\nx-envoy-external-address: 3.3.3.3\r\n\
        x-envoy-upstream-rq-timeout-ms: 7\r\nx-envoy-decorator-operation: d\r\nvia: 1.1 a\r\n";
    let cases = || {
        [
            Case::new("nothing given", ask("/x", "a.test", ""), [200]),
            Case::new("everything given", ask("/x", "a.test", given), [200]),
            Case::new("two addresses", ask("/x", "a.test", "x-forwarded-for: 8.8.8.8, 10.0.0.1\r\n"), [200]),
        ]
    };
    pair("", |_| {}).compare(cases());
    pair("use_remote_address: true, via: spctl,", |listener| {
        listener.use_remote_address = true;
        listener.via = "spctl".into();
    })
    .compare(cases());
    pair(
        "use_remote_address: true, xff_num_trusted_hops: 1, skip_xff_append: true, preserve_external_request_id: true,",
        |listener| {
            listener.use_remote_address = true;
            listener.xff_num_trusted_hops = 1;
            listener.skip_xff_append = true;
            listener.preserve_external_request_id = true;
        },
    )
    .compare(cases());
    let internal = "internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]},";
    pair(&format!("use_remote_address: true, {internal}"), |listener| {
        listener.use_remote_address = true;
        listener.internal_addresses = vec![("127.0.0.0".parse().unwrap(), 8)];
    })
    .compare(cases());
}

pub(crate) fn paths() {
    let all = [
        "/a/../b",
        "/a//b",
        "/%2e%2e/x",
        "/a/./b?c/../d",
        "/a\\b",
        "/%41%7e",
        "/../x",
        "/a/..",
        "/a/.",
        "/a%20b",
        "/a%zz",
        "/a%2Fb?x",
        "/a%2f..%5cb",
        "/a%00b",
        "/%",
        "//",
        "/a///b//",
        "/a%2F%2Fb",
    ];
    let cases = |expected: &dyn Fn(&str) -> u16| -> Vec<Case> {
        all.iter().map(|path| Case::new(*path, ask(path, "a.test", ""), [expected(path)])).collect()
    };
    let is_broken = |path: &str| path == "/a%00b";
    let escaped = |path: &str| path.to_lowercase().contains("%2f") || path.contains("%5c");
    let rules = |normalize, merge_slashes, escaped_slashes| PathRules { normalize, merge_slashes, escaped_slashes };
    pair("normalize_path: true,", |listener| listener.path = rules(true, false, EscapedSlashes::Keep))
        .compare(cases(&|path| if is_broken(path) { 400 } else { 200 }));
    pair("merge_slashes: true,", |listener| listener.path = rules(false, true, EscapedSlashes::Keep))
        .compare(cases(&|_| 200));
    pair(
        "normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT,",
        |listener| {
            listener.path = rules(true, true, EscapedSlashes::UnescapeAndRedirect);
        },
    )
    .compare(cases(&|path| {
        if is_broken(path) {
            400
        } else if escaped(path) {
            307
        } else {
            200
        }
    }));
    pair("path_with_escaped_slashes_action: REJECT_REQUEST,", |listener| {
        listener.path = rules(false, false, EscapedSlashes::Reject);
    })
    .compare(cases(&|path| if escaped(path) { 400 } else { 200 }));
    pair("path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD,", |listener| {
        listener.path = rules(false, false, EscapedSlashes::UnescapeAndForward);
    })
    .compare(cases(&|_| 200));
}
