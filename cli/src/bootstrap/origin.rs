//! Where a cluster of the document leads to.

use std::path::PathBuf;

use serde_json::Value;

/// The first endpoint of a cluster, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub host: String,
    pub port: u16,
    /// Over TLS.
    pub tls: Option<OriginTls>,
}

/// What a cluster's TLS transport socket says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginTls {
    pub sni: Option<String>,
    pub ca_file: Option<PathBuf>,
}

/// None: there is no such cluster, or it has no endpoint.
pub(super) fn of(document: &Value, cluster: &str) -> Option<Origin> {
    let clusters = document.pointer("/static_resources/clusters")?.as_array()?;
    let cluster = clusters.iter().find(|known| known.get("name").and_then(Value::as_str) == Some(cluster))?;
    let address = cluster.pointer("/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address")?;
    let context = cluster.pointer("/transport_socket/typed_config");
    Some(Origin {
        host: address.get("address")?.as_str()?.to_owned(),
        port: u16::try_from(address.get("port_value")?.as_u64()?).ok()?,
        tls: context.map(|context| OriginTls {
            sni: context.get("sni").and_then(Value::as_str).map(str::to_owned),
            ca_file: context
                .pointer("/common_tls_context/validation_context/trusted_ca/filename")
                .and_then(Value::as_str)
                .map(PathBuf::from),
        }),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_endpoint_and_its_tls() {
        let address = json!({"endpoint": {"address": {"socket_address": {"address": "h", "port_value": 443}}}});
        let document = json!({"static_resources": {"clusters": [{
            "name": "a",
            "load_assignment": {"endpoints": [{"lb_endpoints": [address]}]},
            "transport_socket": {"typed_config": {"sni": "s", "common_tls_context": {"validation_context": {"trusted_ca": {"filename": "/ca"}}}}},
        }, {"name": "b"}]}});
        let tls = OriginTls { sni: Some("s".into()), ca_file: Some("/ca".into()) };
        assert_eq!(of(&document, "a"), Some(Origin { host: "h".into(), port: 443, tls: Some(tls) }));
        assert_eq!((of(&document, "b"), of(&document, "c")), (None, None));
    }
}
