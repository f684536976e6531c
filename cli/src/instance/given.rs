//! From a user's bootstrap to plugins: its Wasm filters and services, each with
//! its module found or fetched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ::http::Request;
use http_body_util::Full;
use sha2::{Digest, Sha256};

use super::spec::{Given, PluginSource, PluginSpec, Target};
use crate::adapters::http;
use crate::adapters::tls::Tls;
use crate::bootstrap::{Bootstrap, Code, OriginTls};
use crate::error::{Error, Result};
use crate::harness::FailurePolicy;
use crate::state::{hex, keep_module};

/// Envoy's own default for a remote module is the URI's timeout; this is generous.
const FETCH: Duration = Duration::from_secs(60);

/// Takes the Wasm filters and services out of the document. Modules that are not files
/// become files below `cache`.
pub async fn plugins(bootstrap: &mut Bootstrap, cache: &Path) -> Result<Vec<PluginSpec>> {
    let mut specs = Vec::new();
    for placed in bootstrap.take_plugins()? {
        let source = match placed.code {
            Code::File(path) => PluginSource::File(found(&path, bootstrap)?),
            Code::Inline(bytes) => PluginSource::File(kept(&bytes, cache)?),
            Code::Remote { url, cluster, sha256 } => {
                PluginSource::File(kept(&fetch(&url, &cluster, &sha256, bootstrap).await?, cache)?)
            }
        };
        specs.push(PluginSpec {
            name: placed.filter,
            role: placed.role,
            source,
            config: None,
            root_id: placed.root_id,
            failure_policy: match placed.failure_policy.as_str() {
                "FAIL_OPEN" => FailurePolicy::FailOpen,
                "FAIL_RELOAD" => FailurePolicy::FailReload,
                _ => FailurePolicy::FailClosed,
            },
            given: Some(Given {
                name: placed.plugin,
                vm_id: placed.vm_id,
                configuration: placed.configuration,
                vm_configuration: placed.vm_configuration,
                allow_on_headers_stop_iteration: placed.allow_on_headers_stop_iteration,
                environment: placed.environment,
                capabilities: placed.capabilities,
            }),
        });
    }
    Ok(specs)
}

fn kept(module: &[u8], cache: &Path) -> Result<PathBuf> {
    keep_module(&hex(&Sha256::digest(module)), module, cache)
}

fn found(path: &Path, bootstrap: &Bootstrap) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    // Courses and images mount the module somewhere else.
    let near = bootstrap.near(path.file_name().unwrap_or_default());
    let from = path.parent().unwrap_or(Path::new("/")).display();
    let hint = match near.as_deref().and_then(Path::parent) {
        Some(dir) if dir.as_os_str().is_empty() => format!("; `--map {from}=.` would find it"),
        Some(dir) => format!("; `--map {from}={}` would find it", dir.display()),
        None => format!("; say where it is with `--map {from}=DIRECTORY`"),
    };
    Err(bootstrap.refused("code.local.filename".into(), format!("there is no file `{}`{hint}", path.display())))
}

/// A remote module of the digest that the bootstrap says; a wrong one is
/// refused at the key `code.remote.sha256`. As Envoy fetches it: from the
/// cluster, which says where and how; the URL only tells which host and path to
/// ask for.
pub async fn fetch(url: &str, cluster: &str, sha256: &str, bootstrap: &Bootstrap) -> Result<Vec<u8>> {
    let refused = |reason: String| bootstrap.refused("code.remote".into(), reason);
    let failed = |e: std::io::Error| refused(format!("`{url}` from cluster `{cluster}`: {e}"));
    let target = Target::parse(url)?;
    let Some(origin) = bootstrap.origin(cluster) else {
        return Err(refused(format!("there is no cluster `{cluster}` with an endpoint to fetch `{url}` from")));
    };
    let address = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await.map_err(failed)?.next();
    let address = address.ok_or_else(|| refused(format!("`{}` has no address", origin.host)))?;
    let authority = url.split('/').nth(2).unwrap_or_default();
    let request = Request::get(if target.path.is_empty() { "/" } else { &target.path })
        .header("host", authority)
        .body(Full::default())
        .map_err(|e| refused(e.to_string()))?;
    let answer = match origin.tls {
        None => http::send(address, request, FETCH).await,
        Some(OriginTls { sni, ca_file }) => {
            let tls = Tls { name: sni.unwrap_or(target.host), ca_file };
            http::send_over_tls(address, &tls, request, FETCH).await
        }
    };
    let answer = answer.map_err(failed)?;
    if !answer.status.is_success() {
        return Err(refused(format!("`{url}` was answered with {}", answer.status)));
    }
    let digest = hex(&Sha256::digest(&answer.body));
    if !digest.eq_ignore_ascii_case(sha256) {
        return Err(Error::ConfigRejected {
            place: format!("`{}`", bootstrap.path.display()),
            key: "code.remote.sha256".into(),
            reason: format!("`{url}` has the plugin digest {digest}, not {sha256}"),
        });
    }
    Ok(answer.body.to_vec())
}
