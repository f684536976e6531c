//! What a trap is called: V8's words, since those are what Envoy's logs show.

use std::fmt::Write as _;
use std::time::Duration;

use wasmtime::{Trap, WasmBacktrace};

use crate::vm::Failure;

/// Describes the end of a call; `deadline` is what it was allowed.
pub(crate) fn failure(function: &'static str, error: &wasmtime::Error, deadline: Duration) -> Failure {
    let trap = error.downcast_ref::<Trap>().copied();
    let interrupted = trap == Some(Trap::Interrupt);
    let message = match trap {
        Some(Trap::Interrupt) => format!(
            "it ran longer than the deadline of {0} ms; it would have blocked an Envoy worker for at least {0} ms",
            deadline.as_millis()
        ),
        Some(trap) => v8_message(trap).to_owned(),
        None => error.root_cause().to_string(),
    };
    Failure { function, message, blocked: interrupted.then_some(deadline) }
}

fn v8_message(trap: Trap) -> &'static str {
    match trap {
        Trap::UnreachableCodeReached => "Uncaught RuntimeError: unreachable",
        Trap::MemoryOutOfBounds | Trap::HeapMisaligned => "Uncaught RuntimeError: memory access out of bounds",
        Trap::TableOutOfBounds => "Uncaught RuntimeError: table index is out of bounds",
        Trap::IndirectCallToNull | Trap::BadSignature => {
            "Uncaught RuntimeError: null function or function signature mismatch"
        }
        Trap::IntegerDivisionByZero => "Uncaught RuntimeError: divide by zero",
        Trap::IntegerOverflow => "Uncaught RuntimeError: divide result unrepresentable",
        Trap::BadConversionToInteger => "Uncaught RuntimeError: float unrepresentable in integer range",
        Trap::StackOverflow => "Uncaught RangeError: Maximum call stack size exceeded",
        _ => "Uncaught RuntimeError",
    }
}

/// The error line that Envoy prints for a trap, backtrace included.
pub(crate) fn log_text(failure: &Failure, error: &wasmtime::Error) -> String {
    let mut text = format!("Function: {} failed: {}", failure.function, failure.message);
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return text };
    let frames = backtrace.frames();
    if frames.is_empty() {
        return text;
    }
    text.push_str("\nProxy-Wasm plugin in-VM backtrace:");
    for (index, frame) in frames.iter().enumerate() {
        let offset = frame.module_offset().unwrap_or_default();
        let name = match frame.func_name() {
            Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
            None => format!("wasm-function[{}]", frame.func_index()),
        };
        let _ = write!(text, "\n{index:>3}:  {offset:#x} - {name}");
    }
    text
}
