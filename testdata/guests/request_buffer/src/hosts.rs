//! The shared list of hosts that are scaled to zero.

use std::collections::BTreeSet;

use serde_json::Value;

/// Shared data is found by this key.
pub const KEY: &str = "scaled_to_zero_clusters_key";
/// What a list of this form begins with.
const FORM: &str = "1";
const BETWEEN: char = '~';

/// Hosts without a backend, and when the control plane has said so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    pub updated_ms: u64,
    names: BTreeSet<String>,
}

impl Hosts {
    /// Reads the control plane's answer: a JSON list of names.
    pub fn from_json(body: &[u8], now_ms: u64) -> Result<Self, String> {
        let Value::Array(list) = serde_json::from_slice(body).map_err(|e| e.to_string())? else {
            return Err("a list of hosts is wanted".to_owned());
        };
        let names = list.iter().map(|name| name.as_str().map(normal).ok_or("a host is no string"));
        Ok(Self { updated_ms: now_ms, names: names.collect::<Result<_, _>>()? })
    }

    pub fn encode(&self) -> String {
        let names: Vec<_> = self.names.iter().map(String::as_str).collect();
        format!("{FORM} {} {}", self.updated_ms, names.join(&BETWEEN.to_string()))
    }

    /// None: it is of another form.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.splitn(3, ' ');
        let (form, updated_ms, names) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let names = names.split(BETWEEN).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        (form == FORM).then_some(Self { updated_ms, names })
    }

    /// `host` is in normal form. A list that nobody has renewed holds nobody.
    pub fn holds(&self, host: &str, now_ms: u64, max_age_ms: u64) -> bool {
        now_ms.saturating_sub(self.updated_ms) <= max_age_ms && self.names.contains(host)
    }
}

/// The host of an authority, in lower case, without its port.
pub fn normal(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        // Colons within brackets belong to an IPv6 address.
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    host.to_ascii_lowercase()
}

/// As it can stand in a query.
pub fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_being_shared() {
        let hosts = Hosts::from_json(br#"["A.example.com", "b.example.com:80"]"#, 1000).unwrap();
        let shared = Hosts::decode(hosts.encode().as_bytes()).unwrap();
        assert_eq!(shared, hosts);
        assert!(shared.holds("a.example.com", 1500, 500) && shared.holds("b.example.com", 1000, 500));
        assert!(!shared.holds("c.example.com", 1000, 500));
    }

    #[test]
    fn an_old_list_holds_nobody() {
        let hosts = Hosts::from_json(br#"["a"]"#, 1000).unwrap();
        assert!(!hosts.holds("a", 1501, 500));
    }

    #[test]
    fn an_empty_list_holds_nobody() {
        let hosts = Hosts::decode(Hosts::from_json(b"[]", 7).unwrap().encode().as_bytes()).unwrap();
        assert_eq!(hosts, Hosts { updated_ms: 7, names: BTreeSet::new() });
        assert!(!hosts.holds("", 7, 500));
        assert_eq!(Hosts::decode(b""), None);
        assert_eq!(Hosts::decode(b"a.example.com~b.example.com"), None);
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for body in ["", "{}", "[1]", "[\"a\""] {
            assert!(Hosts::from_json(body.as_bytes(), 0).is_err(), "{body}");
        }
    }

    #[test]
    fn hosts_are_compared_and_sent_in_one_form() {
        assert_eq!(normal("Shop.Example.com:8080"), "shop.example.com");
        assert_eq!(normal("[::1]:80"), "[::1]");
        assert_eq!(normal("[::1]"), "[::1]");
        assert_eq!(escaped("a b&host=c"), "a%20b%26host%3Dc");
    }
}
