//! Which hosts load a module, and where each rule is from. Facts of released
//! versions; a test holds the verdicts against real Envoys.

use std::path::Path;

use serde::Serialize;
use spctl_host::{Abi, HostFunction, LoadError};

use super::Module;

/// Envoy's versions: whether their list of WASI functions is the longer one,
/// and the Istio release they came with.
const ENVOYS: &[Envoy] = &[
    Envoy { version: "1.36", longer_wasi: false, istio: Some("1.28"), source: "proxy-wasm-cpp-host of July 2025" },
    Envoy { version: "1.37", longer_wasi: false, istio: Some("1.29"), source: "tried on Envoy 1.37.0" },
    Envoy { version: "1.38", longer_wasi: false, istio: Some("1.30"), source: "proxy-wasm-cpp-host before April 2026" },
    Envoy { version: "1.39", longer_wasi: true, istio: Some("1.31"), source: "tried on Envoy 1.39.0" },
    Envoy { version: "1.40", longer_wasi: true, istio: None, source: "tried on Envoy 1.40.0" },
];

/// What every Envoy links of WASI; the rest came in April 2026.
const WASI: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_close",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_read",
    "fd_seek",
    "fd_write",
    "path_open",
    "poll_oneoff",
    "proc_exit",
    "random_get",
    "sched_yield",
];

const WASM_CC: &str = "proxy-wasm-cpp-host src/wasm.cc";
const V8_CC: &str = "proxy-wasm-cpp-host src/v8/v8.cc";
/// proxy-wasm-cpp-host `include/proxy-wasm/limits.h`.
const MEMORY_MAX: u64 = 1 << 30;

struct Envoy {
    version: &'static str,
    longer_wasi: bool,
    istio: Option<&'static str>,
    source: &'static str,
}

/// A host's verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadsIn {
    pub host: &'static str,
    pub version: String,
    pub ok: bool,
    /// What stands against it; none: it loads.
    pub why: Option<String>,
    /// Where that is known from.
    pub source: String,
}

/// Why a host refuses a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub why: String,
    pub source: String,
}

/// The embedded host, which tries, then all of [`in_mesh`].
pub fn loads_in(module: &Module, wasm: &[u8], image_refused: Option<&Rule>, cache: &Path) -> Vec<LoadsIn> {
    let mut all = vec![embedded(module, wasm, cache)];
    all.extend(in_mesh(module, wasm, image_refused));
    all
}

/// Envoys and Istio's releases. `image_refused`: the rule by which Istio
/// refuses the image that the module came in.
pub fn in_mesh(module: &Module, wasm: &[u8], image_refused: Option<&Rule>) -> Vec<LoadsIn> {
    let verdicts: Vec<(&Envoy, Option<Rule>)> = ENVOYS.iter().map(|envoy| (envoy, by_envoy(module, envoy))).collect();
    let envoys =
        verdicts.iter().map(|(envoy, rule)| verdict("envoy", envoy.version, rule.clone(), envoy.source.to_owned()));
    let istios = verdicts.iter().filter_map(|(envoy, rule)| {
        let rule = image_refused.cloned().or_else(|| by_agent(wasm)).or_else(|| rule.clone());
        let source = format!("its proxy is Envoy {}; {}", envoy.version, envoy.source);
        Some(verdict("istio", envoy.istio?, rule, source))
    });
    envoys.chain(istios).collect()
}

fn verdict(host: &'static str, version: &str, rule: Option<Rule>, source: String) -> LoadsIn {
    let (why, found) = rule.map(|rule| (rule.why, rule.source)).unzip();
    LoadsIn { host, version: version.to_owned(), ok: why.is_none(), why, source: found.unwrap_or(source) }
}

/// This program itself: it tries.
fn embedded(module: &Module, wasm: &[u8], cache: &Path) -> LoadsIn {
    let refused = match spctl_host::check(wasm, Some(cache)) {
        Ok(_) => too_much_memory(module).map(|rule| rule.why),
        // V8 has more of WebAssembly than is compiled in here.
        Err(LoadError::Corrupt(_)) if !module.proposals.is_empty() => Some(format!(
            "it needs WebAssembly's {}, and the embedded host lacks some of that",
            module.proposals.join(", ")
        )),
        Err(error @ LoadError::NetworkPlugin { .. }) => Some(format!("{error}; the embedded host runs HTTP filters")),
        Err(error) => Some(error.to_string()),
    };
    let rule = refused.map(|why| Rule { why, source: "tried".into() });
    verdict("embedded", env!("CARGO_PKG_VERSION"), rule, "tried".into())
}

fn by_agent(wasm: &[u8]) -> Option<Rule> {
    (wasm.len() as u64 > crate::oci::SIZE_MAX).then(|| Rule {
        why: format!("{} bytes; the agent reads {} at most", wasm.len(), crate::oci::SIZE_MAX),
        source: "istio/istio pkg/wasm (ISTIO_WASM_MAX_BINARY_SIZE_BYTES)".into(),
    })
}

/// The checks of Envoy's V8 runtime, in their order.
fn by_envoy(module: &Module, envoy: &Envoy) -> Option<Rule> {
    let rule = |why: String, source: &str| Some(Rule { why, source: source.to_owned() });
    const NOT_IN_V8: &[&str] = &["custom-page-sizes", "wide-arithmetic", "stack-switching"];
    if let Some(proposal) = module.proposals.iter().find(|proposal| NOT_IN_V8.contains(proposal)) {
        return rule(format!("it needs WebAssembly's proposal `{proposal}`"), V8_CC);
    }
    let Some(abi) = module.abi.as_deref().and_then(known_abi) else {
        let why = match &module.abi {
            Some(other) => format!("Missing or unknown Proxy-Wasm ABI version: it declares {other}"),
            None => "Missing or unknown Proxy-Wasm ABI version: no `proxy_abi_version_…` is exported".to_owned(),
        };
        return rule(why, WASM_CC);
    };
    let provided = spctl_host::provided(abi);
    let missing: Vec<String> = module.imports.iter().filter_map(|import| missing(import, &provided, envoy)).collect();
    if !missing.is_empty() {
        let source = if envoy.longer_wasi { format!("{V8_CC}; {}", envoy.source) } else { envoy.source.to_owned() };
        return rule(format!("missing import: {}", missing.join(", ")), &source);
    }
    for (name, parameters, results) in spctl_host::callbacks(abi) {
        let export = module.exports.iter().find(|export| export.name == name && export.kind == "function");
        let Some(signature) = export.and_then(|export| export.signature.as_deref()) else { continue };
        let wanted = |count: usize| vec!["i32"; count].join(", ");
        let wanted = format!("({}) -> ({})", wanted(parameters), wanted(results));
        if signature != wanted {
            return rule(format!("Bad function signature for: {name}, which is {signature} and not {wanted}"), V8_CC);
        }
    }
    let function = |name: &str| module.exports.iter().find(|export| export.name == name && export.kind == "function");
    match function("malloc").or_else(|| function("proxy_on_memory_allocate")) {
        None => {
            let why = "Wasm module is missing malloc function: no `malloc`, no `proxy_on_memory_allocate`";
            return rule(why.into(), WASM_CC);
        }
        Some(export) if export.signature.as_deref() != Some("(i32) -> (i32)") => {
            let signature = export.signature.as_deref().unwrap_or_default();
            return rule(format!("Bad function signature for: {}, which is {signature}", export.name), V8_CC);
        }
        Some(_) => {}
    }
    too_much_memory(module)
}

fn too_much_memory(module: &Module) -> Option<Rule> {
    let memory = module.memories.iter().find(|memory| memory.initial > MEMORY_MAX)?;
    Some(Rule {
        why: format!("its memory begins with {} bytes; a VM has {MEMORY_MAX} at most", memory.initial),
        source: "proxy-wasm-cpp-host include/proxy-wasm/limits.h".into(),
    })
}

fn known_abi(version: &str) -> Option<Abi> {
    [Abi::V0_1_0, Abi::V0_2_0, Abi::V0_2_1].into_iter().find(|abi| abi.name() == version)
}

/// An import that this Envoy does not provide, and why not where the name is known.
fn missing(import: &super::Import, provided: &[HostFunction], envoy: &Envoy) -> Option<String> {
    let name = format!("{}.{}", import.module, import.name);
    match import.kind {
        "function" => {}
        // The host makes those with the limits that the module declares.
        "memory" | "table" => return None,
        other => return Some(format!("{name} (a {other})")),
    }
    let is_wasi = import.module.starts_with("wasi_");
    let have = provided.iter().find(|function| function.module == import.module && function.name == import.name);
    match have {
        Some(_) if is_wasi && !envoy.longer_wasi && !WASI.contains(&import.name.as_str()) => {
            Some(format!("{name} (Envoy has it since 1.39)"))
        }
        Some(have) if import.signature.as_deref() != Some(&have.signature) => {
            let signature = import.signature.as_deref().unwrap_or_default();
            Some(format!("{name} (imported as {signature}, provided as {})", have.signature))
        }
        Some(_) => None,
        None => Some(name),
    }
}

/// What an import is of.
pub(super) fn group_of_import(module: &str, name: &str) -> &'static str {
    match module {
        "env" if name.starts_with("proxy_") => "proxy-wasm",
        "env" if name.starts_with("envoy_") => "envoy",
        "env" if name.starts_with("emscripten_") || name == "pthread_equal" => "emscripten",
        _ if module.starts_with("wasi_") => "wasi",
        _ => "other",
    }
}
