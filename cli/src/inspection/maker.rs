//! Who made a module: SDK, language, compiler; as far as its bytes tell.

use serde::Serialize;

use super::Module;

/// What a module was made with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Maker {
    pub sdk: Option<Sdk>,
    pub language: Option<String>,
    pub compiler: Option<String>,
    /// Root ids that it answers to: `any`, or a list; none where that cannot be told.
    pub root_ids: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sdk {
    pub name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// From the `producers` section, names of functions, and text in its data that
/// only one toolchain leaves.
pub fn maker(module: &Module, wasm: &[u8]) -> Maker {
    let produced = |field: &str, name: &str| {
        let found = module.producers.iter().find(|[f, n, _]| f == field && n.starts_with(name));
        found.map(|[_, name, version]| format!("{name} {version}").trim().to_owned())
    };
    let named = |part: &str| module.names.iter().any(|name| name.contains(part));
    let imported = |module_name: &str, name: &str| {
        module.imports.iter().any(|import| import.module == module_name && import.name == name)
    };
    let tinygo = produced("processed-by", "TinyGo").is_some() || holds(wasm, b"tinygo_") || named("runtime.tinygo");
    if produced("language", "Rust").is_some() || holds(wasm, b"/rustc/") || rust_sdk(wasm).is_some() {
        let version = rust_sdk(wasm);
        let sdk = version.is_some() || named("proxy_wasm") || holds(wasm, b"proxy_wasm::");
        return Maker {
            sdk: sdk.then_some(Sdk { name: "proxy-wasm-rust-sdk", version }),
            language: Some("Rust".into()),
            compiler: produced("processed-by", "rustc"),
            // Its root context is made for whatever id comes (`set_root_context`).
            root_ids: sdk.then(|| "any".into()),
        };
    }
    if tinygo || produced("language", "Go").is_some() || holds(wasm, b"\xff Go buildinf:") {
        let sdks: [(&[u8], &str); 2] = [
            (b"github.com/proxy-wasm/proxy-wasm-go-sdk", "proxy-wasm-go-sdk"),
            (b"github.com/tetratelabs/proxy-wasm-go-sdk", "tetratelabs/proxy-wasm-go-sdk"),
        ];
        let sdk = sdks.iter().find(|(text, _)| holds(wasm, text)).map(|(_, name)| Sdk { name, version: None });
        let go = produced("processed-by", "Go cmd/compile").or_else(|| go_version(wasm));
        return Maker {
            // Its VM context makes a plugin context for whatever id comes.
            root_ids: sdk.is_some().then(|| "any".into()),
            sdk,
            language: Some("Go".into()),
            compiler: if tinygo { produced("processed-by", "TinyGo").or(Some("TinyGo".into())) } else { go },
        };
    }
    if holds(wasm, &utf16("~lib/")) || imported("env", "abort") {
        let sdk = module.exports.iter().any(|export| export.name == "proxy_on_context_create")
            && holds(wasm, &utf16("proxy-runtime"));
        return Maker {
            sdk: sdk.then_some(Sdk { name: "solo-io/proxy-runtime", version: None }),
            language: Some("AssemblyScript".into()),
            compiler: produced("processed-by", "asc"),
            root_ids: None,
        };
    }
    let cpp =
        produced("language", "C_plus_plus").is_some() || named("_ZN") || named("::") || holds(wasm, b"St9exception");
    let c = produced("language", "C").is_some();
    let clang = produced("processed-by", "clang").or_else(|| produced("processed-by", "Debian clang"));
    if cpp || c || clang.is_some() {
        let emscripten = imported("env", "emscripten_notify_memory_growth");
        // The SDK's classes leave their names to the run-time type information.
        let sdk = holds(wasm, b"11RootContext") || named("RootContext") || named("ContextBase");
        return Maker {
            sdk: sdk.then_some(Sdk { name: "proxy-wasm-cpp-sdk", version: None }),
            language: Some(
                if cpp || sdk {
                    "C++"
                } else if c {
                    "C"
                } else {
                    "C or C++"
                }
                .into(),
            ),
            compiler: clang.map(|clang| if emscripten { format!("Emscripten, {clang}") } else { clang }),
            root_ids: None,
        };
    }
    Maker {
        compiler: module.producers.iter().find(|[f, ..]| f == "processed-by").map(|[_, n, v]| format!("{n} {v}")),
        ..Maker::default()
    }
}

/// The SDK's version in the paths that panics tell of: `proxy-wasm-0.2.5/src/`.
fn rust_sdk(wasm: &[u8]) -> Option<String> {
    const BEFORE: &[u8] = b"/proxy-wasm-";
    let mut rest = wasm;
    while let Some(at) = find(rest, BEFORE) {
        rest = rest.get(at + BEFORE.len()..)?;
        let end = rest.iter().position(|b| *b == b'/')?;
        let version = std::str::from_utf8(rest.get(..end)?).unwrap_or_default();
        if version.starts_with(|c: char| c.is_ascii_digit()) && version.len() < 24 {
            return Some(version.to_owned());
        }
    }
    None
}

/// Go's build information: a length and `go1.…` behind its magic
/// (`debug/buildinfo`, inline strings).
fn go_version(wasm: &[u8]) -> Option<String> {
    let at = find(wasm, b"\xff Go buildinf:")?;
    let rest = wasm.get(at + 32..at + 96)?;
    let start = find(rest, b"go1.")?;
    let version: String = rest.get(start..)?.iter().map_while(|b| b.is_ascii_graphic().then_some(*b as char)).collect();
    Some(format!("Go {}", version.trim_start_matches("go")))
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn holds(wasm: &[u8], text: &[u8]) -> bool {
    find(wasm, text).is_some()
}

fn find(wasm: &[u8], text: &[u8]) -> Option<usize> {
    let first = *text.first()?;
    let last = wasm.len().checked_sub(text.len())?;
    let mut at = 0;
    while at <= last {
        at += wasm.get(at..=last)?.iter().position(|b| *b == first)?;
        if wasm.get(at..at + text.len()) == Some(text) {
            return Some(at);
        }
        at += 1;
    }
    None
}
