//! Topology to Envoy's YAML: pure, so that a test can hold it against Envoy's
//! validate mode.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::own;
use crate::error::{Error, Result};
use crate::harness::{Direction, FailurePolicy, Filter, Role, Topology};
use crate::template::{ENVOY_BOOTSTRAP, ENVOY_FILTER, render};

/// The directory of ECDS files in an instance's.
pub(super) const ECDS: &str = "ecds";
/// The number of the first writing of a plugin.
pub(super) const FIRST: u64 = 1;

/// Where distributions keep the certificates to trust (Debian, Fedora, Alpine and macOS).
const CA_FILES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The bootstrap: static listeners and clusters, every filter by ECDS from
/// files in `directory`'s own, which must exist before Envoy starts.
pub(super) fn bootstrap(topology: &Topology, admin: SocketAddr, directory: &Path) -> Result<String> {
    let config_dir = &directory.join(ECDS);
    let listeners: Vec<_> = topology
        .listeners
        .iter()
        .map(|listener| {
            json!({
                "name": listener.direction.name(),
                "direction": match listener.direction { Direction::Inbound => "INBOUND", Direction::Outbound => "OUTBOUND" },
                "host": listener.address.ip().to_string(),
                "port": listener.address.port(),
                "filters": listener.filters,
                "cluster": listener.cluster,
                "rewrite_host": listener.rewrite_host,
                "buffer_limit": listener.buffer_limit,
            })
        })
        .collect();
    let ca_file = CA_FILES.iter().find(|path| Path::new(path).is_file());
    if topology.clusters.iter().any(|c| c.tls) && ca_file.is_none() {
        return Err(Error::ToolMissing {
            tool: "ca-certificates",
            fix: "install your system's CA certificates, which TLS to an upstream needs",
        });
    }
    let clusters: Vec<_> = topology
        .clusters
        .iter()
        .map(|cluster| {
            let is_ip = cluster.host.parse::<std::net::IpAddr>().is_ok();
            json!({
                "name": cluster.name,
                "type": if is_ip { "STATIC" } else { "STRICT_DNS" },
                "host": cluster.host,
                "port": cluster.port,
                "tls": cluster.tls,
                "http2": cluster.http2,
                "ca_file": ca_file,
            })
        })
        .collect();
    let node = format!("spctl-{}", topology.instance);
    let text = render(
        ENVOY_BOOTSTRAP,
        &json!({"node": node, "config_dir": config_dir.display().to_string(), "admin": {"host": admin.ip().to_string(), "port": admin.port()}, "listeners": listeners, "clusters": clusters}),
    )?;
    let services: Vec<_> = topology.filters.iter().filter(|item| item.role != Role::Filter).collect();
    if topology.own.is_none() && services.is_empty() {
        return Ok(text);
    }
    let mut document = parsed(&text)?;
    if let Some(own) = &topology.own {
        // Ours, rendered, lends its clusters to the user's.
        let ours = document.pointer("/static_resources/clusters").and_then(Value::as_array);
        document = own::complete(&own.document, &node, admin, config_dir, &ours.cloned().unwrap_or_default());
    }
    for service in services {
        own::place_service(&mut document, &service.name, extension(service, directory)?);
    }
    serde_json::to_string_pretty(&document).map_err(|e| Error::Protocol(e.to_string()))
}

/// A service's `typed_config`: the same plugin configuration as a filter's.
fn extension(service: &Filter, directory: &Path) -> Result<Value> {
    let resource = parsed(&filter(service, &directory.join(module_name(service, FIRST)), FIRST)?)?;
    Ok(json!({
        "@type": "type.googleapis.com/envoy.extensions.wasm.v3.WasmService",
        "singleton": service.role == Role::Singleton,
        "config": resource.pointer("/resources/0/typed_config/config"),
    }))
}

fn parsed(text: &str) -> Result<Value> {
    serde_yaml::from_str(text).map_err(|e| Error::Protocol(e.to_string()))
}

/// One filter's ECDS file. `version` makes each writing differ: Envoy skips a
/// file whose typed_config it has seen last, even if it had refused it.
pub(super) fn filter(filter: &Filter, module: &Path, version: u64) -> Result<String> {
    let failure_policy = match filter.failure_policy {
        FailurePolicy::FailClosed => "failure_policy: FAIL_CLOSED",
        FailurePolicy::FailOpen => "failure_policy: FAIL_OPEN",
        FailurePolicy::FailReload => "failure_policy: FAIL_RELOAD",
        FailurePolicy::LegacyFailOpen => "fail_open: true",
    };
    let mut environment = filter.environment.clone();
    environment.insert("SPCTL_GENERATION".into(), filter.generation.to_string());
    let capabilities: BTreeMap<_, _> = filter.capabilities.iter().map(|name| (name, json!({}))).collect();
    render(
        ENVOY_FILTER,
        &json!({
            "name": filter.name,
            "plugin": filter.seen_as,
            "version": version.to_string(),
            "root_id": filter.root_id,
            "vm_id": filter.vm_id,
            "failure_policy": failure_policy,
            "configuration": any(&filter.configuration),
            "vm_configuration": any(&filter.vm_configuration),
            "allow_on_headers_stop_iteration": filter.allow_on_headers_stop_iteration,
            "module": module.display().to_string(),
            "environment": environment,
            "capabilities": capabilities,
        }),
    )
}

/// Bytes as the `Any` that Envoy hands to plugins unwrapped: readable text
/// where it is text.
fn any(bytes: &[u8]) -> serde_json::Value {
    const PREFIX: &str = "type.googleapis.com/google.protobuf.";
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({"@type": format!("{PREFIX}StringValue"), "value": text}),
        Err(_) => json!({"@type": format!("{PREFIX}BytesValue"), "value": STANDARD.encode(bytes)}),
    }
}

/// The module's file name: new bytes, new name; a new name too for each
/// writing, so that the resource differs from one that was refused.
pub(super) fn module_name(filter: &Filter, version: u64) -> String {
    format!("{}-{}-{version}.wasm", filter.plugin, filter.module.digest)
}

/// The digest in such a name.
pub(super) fn digest_of(path: &str) -> Option<&str> {
    let stem = path.rsplit('/').next()?.strip_suffix(".wasm")?;
    let digest = stem.rsplit('-').nth(1)?;
    (digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Module;

    #[test]
    fn a_module_name_carries_its_digest() {
        let filter = Filter {
            name: "capture".into(),
            role: Role::Filter,
            plugin: "my-plugin".into(),
            seen_as: "my-plugin".into(),
            module: Module::new(b"x".to_vec()),
            configuration: Vec::new(),
            vm_configuration: Vec::new(),
            allow_on_headers_stop_iteration: false,
            root_id: String::new(),
            vm_id: String::new(),
            failure_policy: FailurePolicy::FailOpen,
            environment: BTreeMap::new(),
            capabilities: Vec::new(),
            generation: 0,
        };
        let name = module_name(&filter, 7);
        assert_eq!(digest_of(&format!("/a/b/{name}")), Some(filter.module.digest.as_str()));
        assert_eq!(digest_of("/a/plugin.wasm"), None);
    }
}
