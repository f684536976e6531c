//! Configuration, clusters and listeners as Envoy shows them: what is the same
//! in both, under the same names.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use spctl_host::Plugin;

use super::AdminState;
use super::http::{Ask, Reply};
use crate::config::{Cluster, Listener, Route, RouteMatch, Threads};

fn pretty(value: &Value) -> Reply {
    Reply::json(format!("{value:#}\n"))
}

fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

pub(super) fn config(state: &AdminState, ask: &Ask) -> Reply {
    if let Some("bootstrap" | "bootstrap.bootstrap_extensions") = ask.value("mask") {
        return pretty(&json!({"configs": [bootstrap_dump(state)]}));
    }
    let dumps = [
        ("ClustersConfigDump", "static_clusters", clusters_dump(state)),
        ("EcdsConfigDump", "ecds_filters", filters_dump(state)),
        ("ListenersConfigDump", "static_listeners", listeners_dump(state)),
        ("RoutesConfigDump", "static_route_configs", routes_dump(state)),
    ];
    if let Some(resource) = ask.value("resource") {
        return match dumps.into_iter().find(|(_, name, _)| *name == resource) {
            Some((_, _, all)) => pretty(&json!({"configs": all})),
            None => Reply::text(404, format!("{resource} not found in config dump")),
        };
    }
    let configs = dumps.into_iter().map(|(kind, name, all)| {
        let kind = format!("type.googleapis.com/envoy.admin.v3.{kind}");
        json!({"@type": kind, name: all})
    });
    let configs = std::iter::once(bootstrap_dump(state)).chain(configs);
    pretty(&json!({"configs": configs.collect::<Vec<_>>()}))
}

fn plugin_config(plugin: &Plugin) -> Value {
    let config = plugin.config();
    json!({
        "name": config.name,
        "root_id": config.root_id,
        "vm_config": {"vm_id": config.vm_id, "code": {"local": {"filename": format!("sha256:{}", plugin.digest())}}}
    })
}

/// In a listener's chain; else a service.
fn is_filter(state: &AdminState, name: &String) -> bool {
    state.blueprint.listeners.iter().any(|listener| listener.config.filters.contains(name))
}

fn filters_dump(state: &AdminState) -> Vec<Value> {
    let one = |(name, plugin): (String, Arc<Plugin>)| {
        json!({
            "@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump.EcdsFilterConfig",
            "version_info": plugin.digest(),
            "ecds_filter": {
                "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
                "name": name,
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                    "config": plugin_config(&plugin),
                }
            }
        })
    };
    state.plugins().into_iter().filter(|(name, _)| is_filter(state, name)).map(one).collect()
}

/// Of the bootstrap only its Wasm services.
fn bootstrap_dump(state: &AdminState) -> Value {
    let services =
        state.plugins().into_iter().zip(&state.blueprint.filters).filter(|((name, _), _)| !is_filter(state, name));
    let services = services.map(|((name, plugin), (_, threads))| {
        json!({
            "name": name,
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.wasm.v3.WasmService",
                "config": plugin_config(&plugin),
                "singleton": *threads == Threads::Main,
            }
        })
    });
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
        "bootstrap": {"bootstrap_extensions": services.collect::<Vec<_>>()}
    })
}

fn listeners_dump(state: &AdminState) -> Vec<Value> {
    let configs = state.blueprint.listeners.iter().map(|listener| &listener.config);
    let one = |(listener, (_, address)): (&Listener, &(String, SocketAddr))| {
        json!({"listener": {
            "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
            "name": listener.name,
            "address": socket_address(*address),
            "per_connection_buffer_limit_bytes": listener.buffer_limit,
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": listener.stat_prefix,
                    "http_filters": listener.filters.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
                }
            }]}]
        }})
    };
    configs.zip(&state.addresses).map(one).collect()
}

fn routes_dump(state: &AdminState) -> Vec<Value> {
    let route = |route: &Route| {
        let matches = match &route.matches {
            RouteMatch::Prefix(text) => json!({"prefix": text}),
            RouteMatch::Path(text) => json!({"path": text}),
            RouteMatch::PathSeparatedPrefix(text) => json!({"path_separated_prefix": text}),
            RouteMatch::Regex(text) => json!({"safe_regex": {"regex": text}}),
            RouteMatch::Connect => json!({"connect_matcher": {}}),
        };
        let timeout = format!("{}s", route.timeout.as_secs_f64());
        match route.answer {
            None => {
                json!({"name": route.name, "match": matches, "route": {"cluster": route.cluster, "timeout": timeout}})
            }
            Some(_) => json!({"name": route.name, "match": matches}),
        }
    };
    let one = |listener: &Listener| {
        let hosts = listener.virtual_hosts.iter().map(|host| {
            json!({"name": host.name, "domains": host.domains, "routes": host.routes.iter().map(route).collect::<Vec<_>>()})
        });
        json!({"route_config": {
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": listener.name,
            "virtual_hosts": hosts.collect::<Vec<_>>(),
        }})
    };
    state.blueprint.listeners.iter().map(|listener| one(&listener.config)).collect()
}

fn clusters_dump(state: &AdminState) -> Vec<Value> {
    let one = |cluster: &Cluster| {
        let endpoints = cluster.endpoints.iter().filter_map(|endpoint| {
            let (host, port) = endpoint.rsplit_once(':')?;
            let port: u16 = port.parse().ok()?;
            Some(json!({"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}))
        });
        json!({"cluster": {
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            "name": cluster.name,
            "connect_timeout": format!("{}s", cluster.connect_timeout.as_secs_f64()),
            "load_assignment": {
                "cluster_name": cluster.name,
                "endpoints": [{"lb_endpoints": endpoints.collect::<Vec<_>>()}]
            }
        }})
    };
    state.blueprint.targets.iter().map(|target| one(&target.config)).collect()
}

/// Every cluster and endpoint; numbers are the cluster's where Envoy counts by
/// endpoint and there is one.
pub(super) fn clusters(state: &AdminState) -> String {
    let mut out = String::new();
    for target in &state.blueprint.targets {
        let (name, stats) = (&target.config.name, &target.stats);
        let _ = writeln!(out, "{name}::observability_name::{name}\n{name}::added_via_api::false");
        for endpoint in &target.config.endpoints {
            if target.config.endpoints.len() == 1 {
                for (what, number) in [
                    ("cx_connect_fail", &stats.cx_connect_fail),
                    ("cx_total", &stats.cx_total),
                    ("rq_active", &stats.rq_active),
                    ("rq_timeout", &stats.rq_timeout),
                    ("rq_total", &stats.rq_total),
                ] {
                    let _ = writeln!(out, "{name}::{endpoint}::{what}::{}", number.get());
                }
            }
            let _ = writeln!(out, "{name}::{endpoint}::health_flags::healthy\n{name}::{endpoint}::weight::1");
        }
    }
    out
}

pub(super) fn listeners(state: &AdminState, ask: &Ask) -> Reply {
    if ask.value("format") == Some("json") {
        let one =
            |(name, address): &(String, SocketAddr)| json!({"name": name, "local_address": socket_address(*address)});
        return pretty(&json!({"listener_statuses": state.addresses.iter().map(one).collect::<Vec<_>>()}));
    }
    let lines = state.addresses.iter().map(|(name, address)| format!("{name}::{address}\n"));
    Reply::text(200, lines.collect::<String>())
}

pub(super) fn server_info(state: &AdminState) -> Reply {
    let uptime = format!("{}s", state.started.elapsed().as_secs());
    pretty(&json!({
        "version": concat!("spctl/", env!("CARGO_PKG_VERSION")),
        "state": if state.acceptors.is_open() { "LIVE" } else { "DRAINING" },
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "command_line_options": {"concurrency": state.workers}
    }))
}
