//! Finding an Envoy, and whether it can do what is asked of it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::error::{Error, Result};
use crate::toolchain::on_path;

/// An Envoy binary and its version.
#[derive(Debug, Clone)]
pub struct Binary {
    pub path: PathBuf,
    pub version: String,
}

/// `--envoy-path` or `SPCTL_ENVOY` (both in `given`), else `PATH`; checked for
/// its version and that it runs Wasm.
pub async fn find_envoy(given: Option<&Path>) -> Result<Binary> {
    let path = match given {
        Some(path) if path.is_file() => path.to_owned(),
        Some(path) => return Err(Error::EnvoyMissing { looked_in: vec![format!("{} is not a file", path.display())] }),
        None => on_path("envoy").ok_or_else(|| Error::EnvoyMissing {
            looked_in: vec!["--envoy-path and SPCTL_ENVOY are not set".into(), "no `envoy` on PATH".into()],
        })?,
    };
    let unfit = |reason: String| Error::EnvoyUnfit { path: path.clone(), reason };
    let output = Command::new(&path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|e| unfit(format!("it does not start: {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`
    let version = text.split_once("version: ").and_then(|(_, rest)| rest.split('/').nth(1)).map(str::to_owned);
    let version = version.ok_or_else(|| unfit("`--version` does not print an Envoy version".into()))?;
    let binary = Binary { path, version };
    check_wasm(&binary).await?;
    Ok(binary)
}

/// What this Envoy says of a plugin that imports a function it does not have.
pub async fn missing_import(binary: &Binary, module: &Path) -> Option<String> {
    let mut config: serde_json::Value = serde_yaml::from_str(WASM_CHECK).ok()?;
    let code = config.pointer_mut(
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/vm_config/code",
    )?;
    *code = serde_json::json!({"local": {"filename": module.display().to_string()}});
    let output = validate(binary, &config.to_string()).await.ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().find(|line| line.contains("missing import")).map(|line| line.trim().to_owned())
}

async fn validate(binary: &Binary, config: &str) -> std::io::Result<Output> {
    Command::new(&binary.path)
        .args(["--mode", "validate", "--use-dynamic-base-id", "--log-level", "error", "--config-yaml", config])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
}

/// Envoy's own validation of a bootstrap with a no-op plugin tells whether it
/// was built with a Wasm runtime.
async fn check_wasm(binary: &Binary) -> Result<()> {
    let output = validate(binary, WASM_CHECK)
        .await
        .map_err(|e| Error::EnvoyUnfit { path: binary.path.clone(), reason: format!("it does not start: {e}") })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text
        .lines()
        .rev()
        .find(|l| l.contains("asm"))
        .or_else(|| text.lines().last())
        .unwrap_or("it refused a Wasm filter");
    Err(Error::EnvoyUnfit {
        path: binary.path.clone(),
        reason: format!("Envoy {} says: {}", binary.version, line.trim()),
    })
}

/// A listener-less bootstrap with the V8 runtime and an empty ABI 0.2.1 module
/// (memory, `malloc`, the ABI marker), inline.
const WASM_CHECK: &str = include_str!("../../../../templates/envoy/wasm-check.yaml");
