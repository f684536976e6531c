//! The README's generated parts: from the code, held by a test.
//! `SPCTL_BLESS=1` rewrites them.

use spctl_plugin::config::Kind;
use std::path::{Path, PathBuf};

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

/// Text between `<!-- name -->` and `<!-- /name -->` (the latter is written
/// with the first blessing).
fn hold(name: &str, wanted: &str) {
    let path = readme();
    let text = std::fs::read_to_string(&path).unwrap();
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->\n"));
    let (before, rest) = text.split_once(&open).unwrap_or_else(|| panic!("README has no {open}"));
    let (found, after) = rest.split_once(&close).unwrap_or(("", rest));
    let wanted = format!("\n{wanted}\n");
    if found == wanted {
        return;
    }
    assert!(std::env::var_os("SPCTL_BLESS").is_some(), "README's `{name}` part is stale: SPCTL_BLESS=1 rewrites it");
    std::fs::write(&path, format!("{before}{open}{wanted}{close}{after}")).unwrap();
}

fn kind(kind: Kind) -> String {
    let listed = |names: &[&str]| format!("`{}`", names.join("`, `"));
    match kind {
        Kind::Text => "string".into(),
        Kind::Url => "string: URL".into(),
        Kind::Regex => "string: regex".into(),
        Kind::Bool => "bool".into(),
        Kind::Flag => "bool, or `\"true\"`".into(),
        Kind::Integer(min, max) => format!("integer, {min} to {max}"),
        Kind::Choice(names) => format!("string: {}", listed(names)),
        Kind::Set(names) => format!("array: {}", listed(names)),
        Kind::Texts => "array of strings".into(),
        Kind::Regexes => "array of regexes".into(),
        Kind::Names => "array of names, or object with `add` and `remove`".into(),
        Kind::Headers => "object of strings".into(),
        Kind::Object => "object".into(),
        Kind::Objects(_) => "array of objects".into(),
    }
}

/// One test, because blessing rewrites one file.
#[test]
fn the_readme_says_what_the_code_does() {
    let mut config = String::from("| key | type | default | meaning |\n|---|---|---|---|\n");
    let cell = |text: &str| text.replace('|', "\\|");
    for key in spctl_plugin::config::KEYS {
        config.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            key.path,
            cell(&kind(key.kind)),
            cell(key.default),
            cell(key.meaning)
        ));
    }
    hold("config", &config);

    let mut codes = String::from("| code | meaning |\n|---|---|\n");
    for (code, meaning) in spctl::error::exit::TABLE {
        codes.push_str(&format!("| {code} | {meaning} |\n"));
    }
    hold("exit", &codes);

    let scenarios = crate::scenarios::format::load(&crate::common::testdata().join("scenarios"));
    hold("parity", &crate::scenarios::parity::table(&scenarios));
}

#[test]
fn the_readme_names_every_command() {
    let text = std::fs::read_to_string(readme()).unwrap();
    for verb in crate::cli::VERBS {
        assert!(text.contains(&format!("| `spctl {verb}")), "{verb}");
    }
}
