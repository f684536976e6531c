use super::*;
use crate::headers::Headers;

fn decide(policy: &Policy, path: &str, direction: Direction) -> Decision {
    decide_with(policy, path, direction, &[])
}

fn decide_with(policy: &Policy, path: &str, direction: Direction, extra: &[(&str, &str)]) -> Decision {
    let mut pairs = vec![(":method", "GET"), (":path", path), (":authority", "api.example.com:8443")];
    pairs.extend_from_slice(extra);
    let headers = Headers::from_pairs(pairs.iter().map(|(n, v)| (*n, v.as_bytes())));
    policy.decide(&Head::read(&headers), direction)
}

fn rule(hosts: &[&str], paths: &[&str]) -> Rule {
    let compile = |list: &[&str]| list.iter().map(|p| Pattern::compile(p).unwrap()).collect();
    Rule { hosts: compile(hosts), paths: compile(paths) }
}

#[test]
fn captures_everything_without_rules() {
    assert_eq!(decide(&Policy::default(), "/a.js", Direction::Unspecified), Decision::Capture);
}

#[test]
fn server_rules_select_inbound_and_client_rules_outbound_requests_only() {
    let policy = Policy { server: vec![rule(&[], &["^/in"])], client: vec![rule(&["^api"], &[])], ..Policy::default() };
    let skip = Decision::Skip(Reason::NotSelected);
    assert_eq!(decide(&policy, "/in", Direction::Inbound), Decision::Capture);
    assert_eq!(decide(&policy, "/other", Direction::Inbound), skip);
    assert_eq!(decide(&policy, "/other", Direction::Outbound), Decision::Capture);
    assert_eq!(decide(&policy, "/other", Direction::Unspecified), Decision::Capture);
}

#[test]
fn patterns_see_neither_port_nor_query() {
    let policy = Policy { exempt: vec![rule(&[r"^api\.example\.com$"], &["/v1/logs"])], ..Policy::default() };
    assert_eq!(decide(&policy, "/x?next=/v1/logs", Direction::Inbound), Decision::Capture);
    assert_eq!(decide(&policy, "/v1/logs?x", Direction::Inbound), Decision::Skip(Reason::Exempt));
}

#[test]
fn exemptions_win_over_rules_and_may_name_a_host_alone() {
    let policy =
        Policy { server: vec![rule(&[], &[".*"])], exempt: vec![rule(&["example"], &[])], ..Policy::default() };
    assert_eq!(decide(&policy, "/", Direction::Inbound), Decision::Skip(Reason::Exempt));
}

#[test]
fn static_resources_are_known_by_the_path_without_query_in_any_case() {
    let policy = Policy { extensions: NameSet::new(STATIC_EXTENSIONS), ..Policy::default() };
    for path in ["/a.js?v=1", "/A.PNG", "/x/y.woff2"] {
        assert_eq!(decide(&policy, path, Direction::Inbound), Decision::Skip(Reason::Static), "{path}");
    }
    for path in ["/js", "/a.json", "/a.js/b", "/"] {
        assert_eq!(decide(&policy, path, Direction::Inbound), Decision::Capture, "{path}");
    }
}

#[test]
fn static_content_types_spare_errors_and_api_answers() {
    let policy = Policy { content_types: NameSet::new(STATIC_CONTENT_TYPES), ..Policy::default() };
    assert!(policy.is_static(Some(200), b"Image/PNG"));
    assert!(policy.is_static(Some(200), b"text/css; charset=utf-8"));
    assert!(!policy.is_static(Some(404), b"image/png"));
    for kept in [&b"text/html"[..], b"application/octet-stream", b"application/json", b""] {
        assert!(!policy.is_static(Some(200), kept));
    }
}

#[test]
fn prefetches_are_skipped() {
    let policy = Policy { prefetch: true, ..Policy::default() };
    let skip = Decision::Skip(Reason::Prefetch);
    assert_eq!(decide(&policy, "/p?_rsc=1", Direction::Inbound), skip);
    assert_eq!(decide_with(&policy, "/", Direction::Inbound, &[("sec-purpose", "Prefetch")]), skip);
    assert_eq!(decide_with(&policy, "/", Direction::Inbound, &[("rsc", "1")]), skip);
    assert_eq!(decide_with(&policy, "/", Direction::Inbound, &[("accept", "Text/X-Component")]), skip);
    assert_eq!(decide(&policy, "/", Direction::Inbound), Decision::Capture);
}

#[test]
fn simple_patterns_need_no_engine_and_mean_the_same() {
    let samples = ["", "/api", "/api/v1", "x/api", "/ap", "x/api/y", "a.b", "axb"];
    for pattern in ["/api", "^/api", "/api$", "^/api$", "^/api.*", "^/api.*$", ".*", "^", "$", "", "^$", "^.*$", "a.b"]
    {
        let ours = Pattern::compile(pattern).unwrap();
        let engine = Regex::new(pattern).unwrap();
        for sample in samples {
            assert_eq!(ours.matches(sample), engine.is_match(sample), "{pattern} on {sample:?}");
        }
    }
    assert!(Pattern::compile("(").is_err());
}

#[test]
fn splits_authorities() {
    let cases: [(&str, &str, Option<u16>); 6] = [
        ("a:80", "a", Some(80)),
        ("a", "a", None),
        ("[::1]:80", "[::1]", Some(80)),
        ("[::1]", "[::1]", None),
        ("::1", "::1", None),
        ("u:p@a:1", "a", Some(1)),
    ];
    for (authority, host, port) in cases {
        assert_eq!(split_authority(authority.as_bytes()), (host.as_bytes(), port));
    }
}
