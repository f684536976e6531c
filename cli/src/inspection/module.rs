//! A module's sections, read with their bounds; no host's opinion.

use serde::Serialize;
use wasmparser::{
    BinaryReaderError, Encoding, ExternalKind, FuncType, KnownCustom, Name, Parser, Payload, TypeRef, Validator,
    WasmFeatures,
};

use super::hosts::group_of_import;

/// What a module says of itself.
#[derive(Debug, Default)]
pub struct Module {
    /// The first ABI marker among the exports, as Envoy takes it: `0.2.1`.
    pub abi: Option<String>,
    pub imports: Vec<Import>,
    pub exports: Vec<Export>,
    pub memories: Vec<Memory>,
    pub custom: Vec<Custom>,
    /// Field, name and version of the `producers` section.
    pub producers: Vec<[String; 3]>,
    pub functions: usize,
    /// Names of functions, where it has them.
    pub(super) names: Vec<String>,
    /// Proposals of WebAssembly beyond what every host takes.
    pub proposals: Vec<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Import {
    pub module: String,
    pub name: String,
    pub kind: &'static str,
    /// Of a function: `(i32, i64) -> (i32)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    pub group: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Export {
    pub name: String,
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    pub group: &'static str,
}

/// A linear memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub initial: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<u64>,
    pub imported: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Custom {
    pub name: String,
    pub size: usize,
}

/// Why nothing can be said of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    Component,
    Corrupt(String),
}

/// Reads a module; one that is not valid WebAssembly is refused.
pub fn read(wasm: &[u8]) -> Result<Module, Unreadable> {
    if wasm.get(4..8).is_some_and(|version| matches!(version, [_, _, 1, 0])) {
        return Err(Unreadable::Component);
    }
    Validator::new_with_features(WasmFeatures::all()).validate_all(wasm).map_err(corrupt)?;
    let mut module = Module { proposals: proposals(wasm), ..Module::default() };
    let mut types: Vec<Option<FuncType>> = Vec::new();
    let mut functions: Vec<u32> = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(corrupt)? {
            Payload::Version { encoding: Encoding::Component, .. } => return Err(Unreadable::Component),
            Payload::TypeSection(section) => {
                for group in section {
                    for ty in group.map_err(corrupt)?.into_types() {
                        types.push(match ty.composite_type.inner {
                            wasmparser::CompositeInnerType::Func(ty) => Some(ty),
                            _ => None,
                        });
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(corrupt)?;
                    if let TypeRef::Func(at) | TypeRef::FuncExact(at) = import.ty {
                        functions.push(at);
                    }
                    if let TypeRef::Memory(ty) = import.ty {
                        module.memories.push(memory(&ty, true));
                    }
                    let (kind, signature) = kind_of_import(&import.ty, &types);
                    module.imports.push(Import {
                        group: group_of_import(import.module, import.name),
                        module: import.module.to_owned(),
                        name: import.name.to_owned(),
                        kind,
                        signature,
                    });
                }
            }
            Payload::FunctionSection(section) => {
                module.functions = section.count() as usize;
                for at in section {
                    functions.push(at.map_err(corrupt)?);
                }
            }
            Payload::MemorySection(section) => {
                for ty in section {
                    module.memories.push(memory(&ty.map_err(corrupt)?, false));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(corrupt)?;
                    let function = export.kind == ExternalKind::Func;
                    let ty = functions.get(export.index as usize).filter(|_| function);
                    if function && module.abi.is_none() {
                        let version = export.name.strip_prefix("proxy_abi_version_");
                        module.abi = version.map(|version| version.replace('_', "."));
                    }
                    module.exports.push(Export {
                        name: export.name.to_owned(),
                        kind: kind_of_export(export.kind),
                        signature: ty.and_then(|ty| signature(&types, *ty)),
                        group: group_of_export(export.name, export.kind),
                    });
                }
            }
            Payload::CustomSection(section) => {
                module.custom.push(Custom { name: section.name().to_owned(), size: section.data().len() });
                match section.as_known() {
                    KnownCustom::Producers(fields) => read_producers(fields, &mut module),
                    KnownCustom::Name(names) => read_names(names, &mut module),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Ok(module)
}

/// The module as text.
pub fn wat(wasm: &[u8]) -> Result<String, String> {
    wasmprinter::print_bytes(wasm).map_err(|e| format!("{e:#}"))
}

fn corrupt(error: BinaryReaderError) -> Unreadable {
    Unreadable::Corrupt(format!("{} (at byte {})", error.message(), error.offset()))
}

/// A section that cannot be read is only not told of: nothing depends on it.
fn read_producers(fields: wasmparser::ProducersSectionReader<'_>, module: &mut Module) {
    for field in fields.into_iter().flatten() {
        for value in field.values.into_iter().flatten() {
            module.producers.push([field.name, value.name, value.version].map(str::to_owned));
        }
    }
}

fn read_names(names: wasmparser::NameSectionReader<'_>, module: &mut Module) {
    for name in names.into_iter().flatten() {
        if let Name::Function(map) = name {
            module.names.extend(map.into_iter().flatten().map(|naming| naming.name.to_owned()));
        }
    }
}

fn memory(ty: &wasmparser::MemoryType, imported: bool) -> Memory {
    let page = ty.page_size_log2.map_or(65536, |log| 1u64 << log.min(16));
    let bytes = |pages: u64| pages.saturating_mul(page);
    Memory { initial: bytes(ty.initial), maximum: ty.maximum.map(bytes), imported }
}

fn signature(types: &[Option<FuncType>], at: u32) -> Option<String> {
    let ty = types.get(at as usize)?.as_ref()?;
    let list = |types: &[wasmparser::ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Some(format!("({}) -> ({})", list(ty.params()), list(ty.results())))
}

fn kind_of_import(ty: &TypeRef, types: &[Option<FuncType>]) -> (&'static str, Option<String>) {
    match ty {
        TypeRef::Func(at) | TypeRef::FuncExact(at) => ("function", signature(types, *at)),
        TypeRef::Table(_) => ("table", None),
        TypeRef::Memory(_) => ("memory", None),
        TypeRef::Global(_) => ("global", None),
        TypeRef::Tag(_) => ("tag", None),
    }
}

fn kind_of_export(kind: ExternalKind) -> &'static str {
    match kind {
        ExternalKind::Func | ExternalKind::FuncExact => "function",
        ExternalKind::Table => "table",
        ExternalKind::Memory => "memory",
        ExternalKind::Global => "global",
        ExternalKind::Tag => "tag",
    }
}

fn group_of_export(name: &str, kind: ExternalKind) -> &'static str {
    match name {
        _ if name.starts_with("proxy_abi_version_") => "abi",
        "proxy_on_memory_allocate" | "malloc" | "free" => "memory",
        _ if kind == ExternalKind::Memory => "memory",
        "_start" | "_initialize" | "main" | "__main_void" => "start",
        _ if name.starts_with("proxy_") || name.starts_with("envoy_on_") => "callbacks",
        _ => "other",
    }
}

/// Proposals that the module cannot do without, of those that hosts differ in.
fn proposals(wasm: &[u8]) -> Vec<&'static str> {
    const DIFFER: &[(WasmFeatures, &str)] = &[
        (WasmFeatures::MEMORY64, "memory64"),
        (WasmFeatures::MULTI_MEMORY, "multi-memory"),
        (WasmFeatures::THREADS, "threads"),
        (WasmFeatures::TAIL_CALL, "tail-call"),
        (WasmFeatures::RELAXED_SIMD, "relaxed-simd"),
        (WasmFeatures::EXCEPTIONS, "exceptions"),
        (WasmFeatures::LEGACY_EXCEPTIONS, "legacy-exceptions"),
        (WasmFeatures::GC, "gc"),
        (WasmFeatures::FUNCTION_REFERENCES, "function-references"),
        (WasmFeatures::EXTENDED_CONST, "extended-const"),
        (WasmFeatures::CUSTOM_PAGE_SIZES, "custom-page-sizes"),
        (WasmFeatures::WIDE_ARITHMETIC, "wide-arithmetic"),
        (WasmFeatures::STACK_SWITCHING, "stack-switching"),
    ];
    let valid = |features: WasmFeatures| Validator::new_with_features(features).validate_all(wasm).is_ok();
    // Most modules need none of them: one pass tells.
    if valid(DIFFER.iter().fold(WasmFeatures::all(), |all, (feature, _)| all.difference(*feature))) {
        return Vec::new();
    }
    let needs = |(feature, _): &&(WasmFeatures, &str)| !valid(WasmFeatures::all().difference(*feature));
    DIFFER.iter().filter(needs).map(|(_, name)| *name).collect()
}
