//! Which virtual host a request is for: exact names first, then the longest
//! suffix, then the longest prefix, then any.

use std::collections::HashMap;

use crate::config::VirtualHost;

pub(super) struct Domains {
    exact: HashMap<Vec<u8>, usize>,
    /// Longest first.
    suffixes: Vec<(Vec<u8>, usize)>,
    prefixes: Vec<(Vec<u8>, usize)>,
    any: Option<usize>,
}

impl Domains {
    pub(super) fn new(hosts: &[VirtualHost]) -> Self {
        let mut domains = Self { exact: HashMap::new(), suffixes: Vec::new(), prefixes: Vec::new(), any: None };
        for (at, host) in hosts.iter().enumerate() {
            for domain in host.domains.iter().map(|domain| domain.to_ascii_lowercase()) {
                if domain == "*" {
                    domains.any.get_or_insert(at);
                } else if let Some(suffix) = domain.strip_prefix('*') {
                    domains.suffixes.push((suffix.as_bytes().to_vec(), at));
                } else if let Some(prefix) = domain.strip_suffix('*') {
                    domains.prefixes.push((prefix.as_bytes().to_vec(), at));
                } else {
                    domains.exact.entry(domain.into_bytes()).or_insert(at);
                }
            }
        }
        domains.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        domains.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        domains
    }

    pub(super) fn find(&self, authority: &[u8]) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.any;
        }
        let authority = authority.to_ascii_lowercase();
        // A wildcard stands for at least one character.
        let longer = |part: &[u8]| authority.len() > part.len();
        let suffix = || self.suffixes.iter().find(|(suffix, _)| longer(suffix) && authority.ends_with(suffix));
        let prefix = || self.prefixes.iter().find(|(prefix, _)| longer(prefix) && authority.starts_with(prefix));
        let exact = self.exact.get(&authority).copied();
        exact.or_else(|| suffix().or_else(prefix).map(|(_, at)| *at)).or(self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_domain_wins() {
        let host = |domains: &[&str]| VirtualHost {
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            ..VirtualHost::default()
        };
        let domains = Domains::new(&[host(&["*"]), host(&["a.b.c"]), host(&["*.c"]), host(&["*.b.c"]), host(&["a.*"])]);
        for (authority, found) in [("A.b.C", 1), ("x.b.c", 3), ("x.y.c", 2), ("a.z", 4), ("z", 0), (".c", 0)] {
            assert_eq!(domains.find(authority.as_bytes()), Some(found), "{authority}");
        }
        assert_eq!(Domains::new(&[host(&["a"])]).find(b"b"), None);
    }
}
