//! A user's own bootstrap as configuration of the embedded proxy: what people
//! who write Wasm filters write. Anything else is refused by key.

use std::net::SocketAddr;

use serde_json::Value;
use spctl_proxy::{
    Cluster, Codec, DownstreamTls, EscapedSlashes, Listener, ServerHeader, UpstreamProtocol, UpstreamTls,
};

use super::metadata;
use super::reader::{Node, Refused};
use super::routes::route_config;

type Result<T> = std::result::Result<T, Refused>;

const DOWNSTREAM_TLS: &str = "transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM_TLS: &str = "transport_sockets.tls.v3.UpstreamTlsContext";
const WASM_SERVICE: &str = "envoy.extensions.wasm.v3.WasmService";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Listeners, clusters and who the proxy is.
pub(super) struct Read {
    pub(super) listeners: Vec<Listener>,
    pub(super) clusters: Vec<Cluster>,
    pub(super) node: Option<spctl_host::Node>,
    pub(super) admin: Option<SocketAddr>,
    /// Keys that are accepted and do nothing here.
    pub(super) unheeded: Vec<String>,
}

pub(super) fn read(document: &Value) -> Result<Read> {
    let root = Node::new(String::new(), document)?;
    let mut unheeded = Vec::new();
    let admin = root.object("admin")?.map(|node| admin(node, &mut unheeded)).transpose()?;
    let node = root.object("node")?.map(metadata::node).transpose()?;
    for extension in root.objects("bootstrap_extensions")? {
        // What stays of a Wasm service names it; its plugin is not read here.
        typed(extension, WASM_SERVICE)?.finish()?;
    }
    let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
    if let Some(resources) = root.object("static_resources")? {
        for (at, node) in resources.objects("listeners")?.into_iter().enumerate() {
            listeners.push(listener(node, at, &mut unheeded)?);
        }
        for node in resources.objects("clusters")? {
            clusters.push(cluster(node)?);
        }
        resources.finish()?;
    }
    root.finish()?;
    Ok(Read { listeners, clusters, node, admin, unheeded })
}

fn admin(node: Node<'_>, unheeded: &mut Vec<String>) -> Result<SocketAddr> {
    for name in ["access_log", "profile_path"] {
        if node.value(name).is_some() {
            unheeded.push(node.at(name));
        }
    }
    let Some((host, port)) = node.object("address")?.map(socket_address).transpose()? else {
        return node.refused("address", "it is missing");
    };
    let Ok(ip) = host.parse() else { return node.refused("address", format!("`{host}` is no IP address")) };
    node.finish()?;
    Ok(SocketAddr::new(ip, port))
}

fn listener(node: Node<'_>, at: usize, unheeded: &mut Vec<String>) -> Result<Listener> {
    let name = node.text("name")?.map_or_else(|| format!("listener_{at}"), str::to_owned);
    let address = node.object("address")?.map(socket_address).transpose()?;
    let Some((host, port)) = address else { return node.refused("address", "a listener needs one") };
    let Ok(ip) = host.parse() else { return node.refused("address", format!("`{host}` is no IP address")) };
    let mut out = Listener::new(name, SocketAddr::new(ip, port), Vec::new());
    out.direction = match node.text("traffic_direction")? {
        Some("INBOUND") => spctl_host::Direction::Inbound,
        Some("OUTBOUND") => spctl_host::Direction::Outbound,
        _ => spctl_host::Direction::Unspecified,
    };
    if let Some(limit) = node.number("per_connection_buffer_limit_bytes")? {
        out.buffer_limit = usize::try_from(limit).unwrap_or(usize::MAX);
    }
    out.metadata = metadata::of(&node)?;
    node.without_effect(&["enable_reuse_port"]);
    let chains = node.objects("filter_chains")?;
    let [chain] = chains.try_into().or_else(|_| node.refused("filter_chains", "exactly one is supported"))?;
    chain.without_effect(&["name"]);
    out.tls = chain.object("transport_socket")?.map(downstream_tls).transpose()?;
    let filters = chain.objects("filters")?;
    let [filter] =
        filters.try_into().or_else(|_| chain.refused("filters", "one HTTP connection manager is supported"))?;
    filter.without_effect(&["name"]);
    match filter.object("typed_config")? {
        Some(manager) => connection_manager(manager, &mut out, unheeded)?,
        None => return filter.refused("typed_config", "it is missing"),
    }
    filter.finish()?;
    chain.finish()?;
    node.finish()?;
    Ok(out)
}

fn downstream_tls(socket: Node<'_>) -> Result<DownstreamTls> {
    let context = typed(socket, DOWNSTREAM_TLS)?;
    let Some(common) = context.object("common_tls_context")? else {
        return context.refused("common_tls_context", "it is missing");
    };
    let certificates = common.objects("tls_certificates")?;
    let [certificate] =
        certificates.try_into().or_else(|_| common.refused("tls_certificates", "exactly one is supported"))?;
    let file = |name| match certificate.object(name)? {
        Some(source) => match source.text("filename")? {
            Some(path) => Ok(path.into()),
            None => source.refused("filename", "only files are supported"),
        },
        None => certificate.refused(name, "it is missing"),
    };
    let (certificate_chain, private_key) = (file("certificate_chain")?, file("private_key")?);
    let alpn = common.value("alpn_protocols").and_then(Value::as_array).into_iter().flatten();
    let alpn_protocols = alpn.filter_map(Value::as_str).map(str::to_owned).collect();
    certificate.finish()?;
    common.finish()?;
    context.finish()?;
    Ok(DownstreamTls { certificate_chain, private_key, alpn_protocols })
}

/// The `typed_config` of an extension, of the wanted type.
fn typed<'a>(extension: Node<'a>, kind: &str) -> Result<Node<'a>> {
    extension.without_effect(&["name"]);
    let Some(config) = extension.object("typed_config")? else {
        return extension.refused("typed_config", "it is missing");
    };
    if !config.text("@type")?.unwrap_or_default().ends_with(kind) {
        return config.refused("@type", "the embedded harness does not support this extension");
    }
    extension.finish()?;
    Ok(config)
}

fn connection_manager(node: Node<'_>, out: &mut Listener, unheeded: &mut Vec<String>) -> Result<()> {
    if !node.text("@type")?.unwrap_or_default().ends_with(".v3.HttpConnectionManager") {
        return node.refused("@type", "only HTTP connection managers are supported");
    }
    node.text("stat_prefix")?.unwrap_or_default().clone_into(&mut out.stat_prefix);
    out.codec = match node.text("codec_type")? {
        None | Some("AUTO") => Codec::Auto,
        Some("HTTP1") => Codec::Http1,
        Some("HTTP2") => Codec::Http2,
        Some(other) => return node.refused("codec_type", format!("`{other}` is not supported")),
    };
    if let Some(name) = node.text("server_name")? {
        name.clone_into(&mut out.server_name);
    }
    out.server_header = match node.text("server_header_transformation")? {
        None | Some("OVERWRITE") => ServerHeader::Overwrite,
        Some("APPEND_IF_ABSENT") => ServerHeader::AppendIfAbsent,
        Some("PASS_THROUGH") => ServerHeader::PassThrough,
        Some(other) => return node.refused("server_header_transformation", format!("`{other}` is unknown")),
    };
    origins(&node, out)?;
    paths(&node, out)?;
    limits(&node, out)?;
    for upgrade in node.objects("upgrade_configs")? {
        if upgrade.flag("enabled")?.unwrap_or(true) {
            out.upgrades.push(upgrade.text("upgrade_type")?.unwrap_or_default().to_owned());
        }
        upgrade.finish()?;
    }
    if let Some(options) = node.object("http_protocol_options")? {
        out.enable_trailers = options.flag("enable_trailers")?.unwrap_or(false);
        options.finish()?;
    }
    if node.value("access_log").is_some() {
        unheeded.push(node.at("access_log"));
    }
    match node.object("route_config")? {
        Some(routes) => route_config(routes, out)?,
        None => return node.refused("route_config", "routes must be in the file itself"),
    }
    let filters = node.objects("http_filters")?;
    for (at, filter) in filters.iter().enumerate() {
        let last = at + 1 == filters.len();
        if filter.value("config_discovery").is_some() && !last {
            out.filters.push(filter.text("name")?.unwrap_or_default().to_owned());
            continue;
        }
        let Some(config) = filter.object("typed_config")? else {
            return filter.refused("typed_config", "only Wasm filters and the router are supported");
        };
        let kind = config.text("@type")?.unwrap_or_default();
        if !kind.ends_with(".router.v3.Router") || !last {
            return config.refused(
                "@type",
                format!("only Wasm filters, and the router as the last, are supported: not `{kind}`"),
            );
        }
        out.suppress_envoy_headers = config.flag("suppress_envoy_headers")?.unwrap_or(false);
        config.without_effect(&["dynamic_stats"]);
        config.finish()?;
    }
    node.finish()
}

/// What is believed and told of where a request came from.
fn origins(node: &Node<'_>, out: &mut Listener) -> Result<()> {
    out.use_remote_address = node.flag("use_remote_address")?.unwrap_or(false);
    out.skip_xff_append = node.flag("skip_xff_append")?.unwrap_or(false);
    out.xff_num_trusted_hops = node.number("xff_num_trusted_hops")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    out.generate_request_id = node.flag("generate_request_id")?.unwrap_or(true);
    out.preserve_external_request_id = node.flag("preserve_external_request_id")?.unwrap_or(false);
    node.text("via")?.unwrap_or_default().clone_into(&mut out.via);
    Ok(())
}

fn paths(node: &Node<'_>, out: &mut Listener) -> Result<()> {
    out.path.normalize = node.flag("normalize_path")?.unwrap_or(false);
    out.path.merge_slashes = node.flag("merge_slashes")?.unwrap_or(false);
    out.path.escaped_slashes = match node.text("path_with_escaped_slashes_action")? {
        None | Some("IMPLEMENTATION_SPECIFIC_DEFAULT" | "KEEP_UNCHANGED") => EscapedSlashes::Keep,
        Some("REJECT_REQUEST") => EscapedSlashes::Reject,
        Some("UNESCAPE_AND_REDIRECT") => EscapedSlashes::UnescapeAndRedirect,
        Some("UNESCAPE_AND_FORWARD") => EscapedSlashes::UnescapeAndForward,
        Some(other) => return node.refused("path_with_escaped_slashes_action", format!("`{other}` is unknown")),
    };
    Ok(())
}

fn limits(node: &Node<'_>, out: &mut Listener) -> Result<()> {
    if let Some(timeout) = node.duration("stream_idle_timeout")? {
        out.stream_idle_timeout = timeout;
    }
    if let Some(timeout) = node.duration("request_timeout")? {
        out.request_timeout = timeout;
    }
    if let Some(timeout) = node.duration("request_headers_timeout")? {
        out.request_headers_timeout = timeout;
    }
    if let Some(options) = node.object("common_http_protocol_options")? {
        if let Some(timeout) = options.duration("idle_timeout")? {
            out.idle_timeout = timeout;
        }
        options.finish()?;
    }
    Ok(())
}

fn cluster(node: Node<'_>) -> Result<Cluster> {
    let Some(name) = node.text("name")? else { return node.refused("name", "a cluster needs one") };
    if let Some(kind) = node.text("type")?
        && !matches!(kind, "STATIC" | "STRICT_DNS" | "LOGICAL_DNS")
    {
        return node.refused("type", format!("`{kind}` is not supported"));
    }
    if node.text("lb_policy")?.is_some_and(|policy| policy != "ROUND_ROBIN") {
        return node.refused("lb_policy", "only ROUND_ROBIN is supported");
    }
    node.without_effect(&["dns_lookup_family"]);
    let mut endpoints = Vec::new();
    if let Some(assignment) = node.object("load_assignment")? {
        assignment.without_effect(&["cluster_name"]);
        for locality in assignment.objects("endpoints")? {
            for endpoint in locality.objects("lb_endpoints")? {
                endpoints.push(lb_endpoint(endpoint)?);
            }
            locality.finish()?;
        }
        assignment.finish()?;
    }
    let mut out = Cluster::new(name, endpoints);
    out.metadata = metadata::of(&node)?;
    if let Some(timeout) = node.duration("connect_timeout")? {
        out.connect_timeout = timeout;
    }
    if node.value("http2_protocol_options").is_some() {
        out.protocol = UpstreamProtocol::Http2;
    }
    if let Some(options) = node.object("typed_extension_protocol_options")? {
        if let Some(http) = options.object(HTTP_OPTIONS)? {
            http.without_effect(&["@type"]);
            protocol(http, &mut out)?;
        }
        options.finish()?;
    }
    out.tls = node.object("transport_socket")?.map(upstream_tls).transpose()?;
    node.finish()?;
    Ok(out)
}

fn protocol(http: Node<'_>, out: &mut Cluster) -> Result<()> {
    if let Some(explicit) = http.object("explicit_http_config")? {
        if let Some(first) = explicit.object("http_protocol_options")? {
            out.enable_trailers = first.flag("enable_trailers")?.unwrap_or(false);
            first.finish()?;
        }
        if explicit.value("http2_protocol_options").is_some() {
            out.protocol = UpstreamProtocol::Http2;
        }
        explicit.finish()?;
    }
    http.finish()
}

fn lb_endpoint(node: Node<'_>) -> Result<String> {
    let Some(endpoint) = node.object("endpoint")? else { return node.refused("endpoint", "it is missing") };
    let Some(address) = endpoint.object("address")? else { return endpoint.refused("address", "it is missing") };
    let (host, port) = socket_address(address)?;
    endpoint.finish()?;
    node.finish()?;
    Ok(super::authority(&host, port))
}

fn upstream_tls(socket: Node<'_>) -> Result<UpstreamTls> {
    let context = typed(socket, UPSTREAM_TLS)?;
    let mut out = UpstreamTls { sni: context.text("sni")?.map(str::to_owned), ca_file: None };
    if let Some(common) = context.object("common_tls_context")? {
        if let Some(validation) = common.object("validation_context")? {
            if let Some(ca) = validation.object("trusted_ca")? {
                out.ca_file = ca.text("filename")?.map(Into::into);
                ca.finish()?;
            }
            validation.finish()?;
        }
        common.without_effect(&["alpn_protocols"]);
        common.finish()?;
    }
    context.without_effect(&["auto_host_sni", "auto_sni_san_validation"]);
    context.finish()?;
    Ok(out)
}

/// Host and port of `{socket_address: …}`.
fn socket_address(node: Node<'_>) -> Result<(String, u16)> {
    let Some(socket) = node.object("socket_address")? else {
        return node.refused("socket_address", "only socket addresses are supported");
    };
    let Some(host) = socket.text("address")? else { return socket.refused("address", "it is missing") };
    let port = socket.number("port_value")?.and_then(|port| u16::try_from(port).ok());
    let Some(port) = port else { return socket.refused("port_value", "a number up to 65535 is wanted") };
    socket.without_effect(&["protocol"]);
    socket.finish()?;
    node.finish()?;
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_supported_is_refused_by_key() {
        let document = json!({"static_resources": {"clusters": [{"name": "a", "outlier_detection": {}}]}});
        assert_eq!(read(&document).err().unwrap().0, "static_resources.clusters[0].outlier_detection");
        assert_eq!(read(&json!({"layered_runtime": {}})).err().unwrap().0, "layered_runtime");
        let other = json!({"bootstrap_extensions": [{"name": "a", "typed_config": {"@type": "x/InternalListener"}}]});
        assert_eq!(read(&other).err().unwrap().0, "bootstrap_extensions[0].typed_config.@type");
    }

    #[test]
    fn clusters_are_read() {
        let document = json!({"node": {"id": "n", "cluster": "c"}, "static_resources": {"clusters": [{
            "name": "a", "type": "STRICT_DNS", "connect_timeout": "0.25s",
            "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "h", "port_value": 80}}}}]}]},
            "typed_extension_protocol_options": {HTTP_OPTIONS: {"@type": "x", "explicit_http_config": {"http2_protocol_options": {}}}},
        }]}});
        let read = read(&document).ok().unwrap();
        let cluster = &read.clusters[0];
        assert_eq!(cluster.endpoints, ["h:80"]);
        assert_eq!((cluster.protocol, cluster.connect_timeout.as_millis()), (UpstreamProtocol::Http2, 250));
        assert_eq!(read.node.map(|node| (node.id, node.cluster)), Some(("n".into(), "c".into())));
    }
}
