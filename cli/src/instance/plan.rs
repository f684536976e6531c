//! From a spec to a topology: reads plugins and configurations, completes the
//! capture filter's own, and refuses what would be refused later.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Map, Value};

use super::serve::Answered;
use super::spec::{Given, PluginSpec, Spec, Target};
use crate::bundle;
use crate::error::{Error, Result};
use crate::harness::{Cluster, Direction, Filter, Listener, Module, Own, Topology};
use crate::state::read_small;
use crate::trace::Trace;

/// The capture filter's name among plugins.
pub const CAPTURE: &str = "capture";
/// The cluster that leads to the backend.
const BACKEND_CLUSTER: &str = "spctl_backend";
/// Envoy itself has no bound; a configuration beyond this is a wrong file.
const CONFIG_MAX: u64 = 16 << 20;
const KEY_MAX: u64 = 64 << 10;

/// What the running instance knows and the spec does not.
pub(super) struct Places {
    pub(super) inbound: SocketAddr,
    pub(super) outbound: SocketAddr,
    pub(super) upstream: Target,
    pub(super) outbound_upstream: Option<Target>,
    pub(super) clusters: Vec<(String, Target)>,
    pub(super) backend: Target,
    /// The backend's key, read from its file.
    pub(super) key: Option<String>,
}

/// A plugin as read: bytes and configuration.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) module: Module,
    pub(super) configuration: Vec<u8>,
}

/// Reads a plugin's files. Warnings are about its configuration.
pub(super) fn load(plugin: &PluginSpec, warnings: &mut Vec<String>) -> Result<Loaded> {
    let module = match plugin.module_path() {
        None => bundle::capture(),
        Some(path) => bundle::read(&plugin.name, path)?,
    };
    let configuration = match &plugin.config {
        None => plugin.given.as_ref().map(|given| given.configuration.clone()).unwrap_or_default(),
        Some(path) => read_config(path)?,
    };
    if bundle::is_capture(&module) {
        check_capture_config(plugin, &configuration, warnings)?;
    }
    Ok(Loaded { module, configuration })
}

/// JSON and YAML files must hold what their name says, and reach the plugin
/// as JSON; any other file is passed as it is.
fn read_config(path: &Path) -> Result<Vec<u8>> {
    let bytes = read_small(path, CONFIG_MAX)?;
    let unparsable = |reason: String| Error::ConfigUnparsable { place: format!("`{}`", path.display()), reason };
    match path.extension().and_then(|e| e.to_str()) {
        Some("json") => {
            serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).map_err(|e| unparsable(e.to_string()))?;
            Ok(bytes)
        }
        Some("yaml" | "yml") => {
            let value: Value = serde_yaml::from_slice(&bytes).map_err(|e| unparsable(e.to_string()))?;
            serde_json::to_vec(&value).map_err(|e| unparsable(e.to_string()))
        }
        _ => Ok(bytes),
    }
}

/// The filter's own parser, before anything is sent anywhere.
fn check_capture_config(plugin: &PluginSpec, configuration: &[u8], warnings: &mut Vec<String>) -> Result<()> {
    let place =
        plugin.config.as_ref().map_or_else(|| "the defaults".to_owned(), |path| format!("`{}`", path.display()));
    if configuration.is_empty() {
        return Ok(());
    }
    let parsed = spctl_plugin::config::parse(configuration).map_err(|e| Error::ConfigRejected {
        place: place.clone(),
        key: e.path,
        reason: e.message,
    })?;
    warnings.extend(parsed.warnings.iter().map(|warning| format!("{place}: {warning}")));
    Ok(())
}

/// How often a plugin was loaded, and how often a new VM was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    pub(super) number: u64,
    /// Above zero: a new VM, though its bytes may be the same.
    pub(super) generation: u32,
    /// The capture filter asks the backend for answers.
    pub(super) inject: Option<Answered>,
}

/// The filters of one plugin, one a listener.
pub(super) fn filters(
    plugin: &PluginSpec,
    loaded: &Loaded,
    spec: &Spec,
    places: &Places,
    load: Load,
) -> Result<Vec<Filter>> {
    let mut directions = vec![Direction::Inbound];
    if spec.outbound.is_some() && spec.bootstrap.is_none() {
        directions.push(Direction::Outbound);
    }
    directions
        .into_iter()
        .map(|direction| {
            let configuration = if bundle::is_capture(&loaded.module) {
                complete_capture_config(&loaded.configuration, spec, places, direction, load)?
            } else {
                loaded.configuration.clone()
            };
            let lets_bodies_through = bundle::is_capture(&loaded.module) && asks_with_bodies(&configuration);
            let given = plugin.given.clone().unwrap_or_else(|| Given {
                name: plugin.name.clone(),
                vm_id: plugin.name.clone(),
                configuration: Vec::new(),
                vm_configuration: Vec::new(),
                allow_on_headers_stop_iteration: false,
                environment: Vec::new(),
                capabilities: Vec::new(),
            });
            Ok(Filter {
                name: filter_name(&plugin.name, direction),
                role: plugin.role,
                plugin: plugin.name.clone(),
                seen_as: given.name,
                module: loaded.module.clone(),
                configuration,
                vm_configuration: given.vm_configuration,
                allow_on_headers_stop_iteration: given.allow_on_headers_stop_iteration || lets_bodies_through,
                environment: given.environment.into_iter().collect(),
                root_id: plugin.root_id.clone(),
                vm_id: given.vm_id,
                failure_policy: plugin.failure_policy,
                capabilities: given.capabilities,
                generation: load.generation,
            })
        })
        .collect()
}

pub(super) fn topology(spec: &Spec, places: &Places, filters: Vec<Filter>, trace: Option<Trace>) -> Topology {
    let chain = |direction| spec.plugins.iter().map(|plugin| filter_name(&plugin.name, direction)).collect();
    let mut clusters = vec![cluster("upstream", &places.upstream), cluster(BACKEND_CLUSTER, &places.backend)];
    let mut listeners = vec![Listener {
        direction: Direction::Inbound,
        address: places.inbound,
        filters: chain(Direction::Inbound),
        cluster: "upstream".into(),
        rewrite_host: places.upstream.tls,
        buffer_limit: None,
    }];
    if let Some(target) = &places.outbound_upstream {
        clusters.push(cluster("outbound", target));
        listeners.push(Listener {
            direction: Direction::Outbound,
            address: places.outbound,
            filters: chain(Direction::Outbound),
            cluster: "outbound".into(),
            rewrite_host: target.tls,
            buffer_limit: None,
        });
    }
    if let Some(bootstrap) = &spec.bootstrap {
        // Listeners and clusters are the user's; only the backend's is ours.
        listeners.clear();
        clusters.retain(|cluster| cluster.name == BACKEND_CLUSTER);
        let files = bootstrap.files();
        return Topology {
            own: Some(Own { document: bootstrap.document.clone(), files }),
            trace,
            ..assembled(spec, listeners, clusters, filters)
        };
    }
    clusters.extend(places.clusters.iter().map(|(name, target)| cluster(name, target)));
    Topology { trace, ..assembled(spec, listeners, clusters, filters) }
}

fn assembled(spec: &Spec, listeners: Vec<Listener>, clusters: Vec<Cluster>, filters: Vec<Filter>) -> Topology {
    Topology {
        instance: spec.name.clone(),
        own: None,
        listeners,
        clusters,
        filters,
        workers: spec.workers,
        log_level: spec.log_level,
        limits: spec.limits,
        trace: None,
    }
}

fn filter_name(plugin: &str, direction: Direction) -> String {
    match direction {
        Direction::Inbound => plugin.to_owned(),
        Direction::Outbound => format!("{plugin}.outbound"),
    }
}

fn cluster(name: &str, target: &Target) -> Cluster {
    Cluster { name: name.to_owned(), host: target.host.clone(), port: target.port, tls: target.tls, http2: false }
}

/// Adds what the instance knows and the user did not set: backend, key,
/// direction, the number of this load.
fn complete_capture_config(
    configuration: &[u8],
    spec: &Spec,
    places: &Places,
    direction: Direction,
    load: Load,
) -> Result<Vec<u8>> {
    let mut config: Map<String, Value> = if configuration.is_empty() {
        Map::new()
    } else {
        serde_json::from_slice(configuration).map_err(|e| Error::Protocol(e.to_string()))?
    };
    let mut set = |key: &str, value: String| {
        config.entry(key.to_owned()).or_insert(Value::String(value));
    };
    set("sp_backend_url", places.backend.url());
    set("service_name", spec.service.clone());
    set("backend_cluster", BACKEND_CLUSTER.to_owned());
    set("traffic_direction", direction.name().to_owned());
    if let Some(key) = &places.key {
        set("public_key", key.clone());
    }
    if let Value::Object(export) = config.entry("export").or_insert_with(|| Value::Object(Map::new())) {
        export.entry("load").or_insert(load.number.into());
    }
    if let (Some(answered), Value::Object(inject)) =
        (load.inject, config.entry("inject").or_insert_with(|| Value::Object(Map::new())))
    {
        inject.insert("enabled".into(), true.into());
        inject.insert("direction".into(), answered.name().into());
        // These filters let bodies through while headers wait.
        inject.entry("body").or_insert(true.into());
    }
    serde_json::to_vec(&config).map_err(|e| Error::Protocol(e.to_string()))
}

/// Whether a configuration of the capture filter needs
/// `allow_on_headers_stop_iteration`, which is Envoy's since 1.35.
fn asks_with_bodies(configuration: &[u8]) -> bool {
    spctl_plugin::config::parse(configuration)
        .is_ok_and(|parsed| parsed.config.inject.enabled && parsed.config.inject.body)
}

/// The backend's key: the file's first line, trimmed.
pub(super) fn read_key(path: &Path) -> Result<String> {
    let bytes = read_small(path, KEY_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let key = text.lines().next().unwrap_or_default().trim();
    if key.is_empty() {
        return Err(Error::Usage(format!("`{}` holds no key on its first line", path.display())));
    }
    Ok(key.to_owned())
}
