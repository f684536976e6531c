//! `config check`, `explain`, `schema`.

use serde_json::Value;

use crate::common::Spctl;

#[test]
fn check_fails_bad_values_and_typos_and_names_their_place() {
    let spctl = Spctl::new();
    let check = |name: &str, content: &str| {
        let path = spctl.file(name, content);
        let ended = spctl.run(&["config", "check", path.to_str().unwrap(), "--output", "json"]);
        (ended.code, serde_json::from_str::<Value>(&ended.stdout).unwrap())
    };
    let (code, good) = check("a.json", r#"{"wire": "softprobe", "cache_ttl_seconds": 1}"#);
    assert_eq!(code, 0, "{good}");
    assert_eq!(good["data"]["configurations"][0]["wire"], "softprobe");
    assert_eq!(good["data"]["configurations"][0]["warnings"].as_array().unwrap().len(), 1);
    let plugin = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nspec:\n  pluginConfig:\n    limits: {linger_ms: -1}\n";
    let (code, bad) = check("plugin.yaml", plugin);
    assert_eq!(code, 10, "{bad}");
    let message = bad["error"]["message"].as_str().unwrap();
    assert!(message.contains("spec.pluginConfig") && message.contains("limits.linger_ms"), "{message}");
    let (code, typo) = check("b.yaml", "sp_backend_ulr: http://x\n");
    assert_eq!((code, typo["error"]["message"].as_str().unwrap().contains("sp_backend_ulr")), (10, true), "{typo}");
    assert_eq!(check("c.yaml", "static_resources: {}\n").0, 2);
    assert_eq!(check("d.yaml", "a: [").0, 10);
}

#[test]
fn explain_names_the_rule_that_decides() {
    let spctl = Spctl::new();
    let file = spctl.file(
        "a.yaml",
        "collectionRules:\n  http:\n    client: [{host: '^stock$', paths: ['^/a', '^/b']}]\n    server: [{path: ^/api}]\nexemptionRules: [{hostPatterns: [health]}]\ninject: {enabled: true}\n",
    );
    let explain = |args: &[&str]| {
        let args = [&["config", "explain", file.to_str().unwrap()], args].concat();
        let verdict = spctl.data(&args)["verdicts"][0].clone();
        (
            verdict["captured"].as_bool().unwrap(),
            verdict["key"].as_str().unwrap().to_owned(),
            verdict["injected"].as_bool().unwrap(),
        )
    };
    let outbound = ["--direction", "outbound"];
    let with = |rest: &[&'static str]| [rest, &outbound].concat();
    assert_eq!(
        explain(&with(&["GET", "http://stock:80/b?c=d"])),
        (true, "collectionRules.http.client[0]".into(), true)
    );
    assert_eq!(explain(&with(&["GET", "http://stock/c"])), (false, "collectionRules".into(), false));
    assert_eq!(explain(&["GET", "/api/x", "-H", "Host: shop"]), (true, "collectionRules.http.server[0]".into(), false));
    assert_eq!(explain(&["GET", "http://health/api"]), (false, "exemptionRules[0]".into(), false));
    assert_eq!(explain(&["GET", "/api/x.png"]), (false, "skip.extensions".into(), false));
    assert_eq!(explain(&["GET", "/api", "--content-type", "image/png"]), (false, "skip.content_types".into(), false));
    assert_eq!(explain(&["GET", "/api", "-H", "purpose: prefetch"]), (false, "skip.prefetch".into(), false));
    assert_eq!(spctl.run(&["config", "explain", file.to_str().unwrap(), "GET", "shop"]).code, 2);
}

/// Every key of the reference is in the schema, with its kind.
#[test]
fn the_schema_has_every_key() {
    let schema = Spctl::new().data(&["config", "schema"]);
    for key in spctl_plugin::config::KEYS {
        let mut at = &schema;
        for part in key.path.split('.') {
            let name = part.trim_end_matches("[]");
            at = &at["properties"][name];
            if part.ends_with("[]") {
                at = &at["items"];
            }
        }
        assert!(at.get("description").is_some(), "{}: {at}", key.path);
    }
    assert_eq!(schema["properties"]["limits"]["properties"]["linger_ms"]["maximum"], 60_000);
    assert_eq!(schema["properties"]["wire"]["enum"][0], "otlp");
    assert_eq!(schema["properties"]["circuit_breaker"]["deprecated"], true);
    assert_eq!(schema["additionalProperties"], false);
}
