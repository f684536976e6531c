//! Which hosts are blocked.

/// Blocked domains, in lower case.
#[derive(Debug, Clone)]
pub struct Blocklist(Vec<String>);

impl Blocklist {
    /// Reads a configuration; an empty one blocks what lies below `example.com`.
    pub fn parse(text: &str) -> Self {
        let domains: Vec<_> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
        Self(if domains.is_empty() { vec![".example.com".to_owned()] } else { domains })
    }

    /// `authority` is a host, perhaps with a port.
    pub fn blocks(&self, authority: &str) -> bool {
        let host = host(authority);
        self.0.iter().any(|domain| match domain.strip_prefix('.') {
            Some(parent) => is_below(&host, parent),
            None => host == *domain || is_below(&host, domain),
        })
    }
}

/// The host in lower case, without port and without the root's dot.
fn host(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        // Colons within brackets belong to an IPv6 address.
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_the_domain_and_not_the_domain() {
        let list = Blocklist::parse("");
        for blocked in ["a.example.com", "a.b.example.com", "A.Example.COM", "a.example.com:8080", "a.example.com."] {
            assert!(list.blocks(blocked), "{blocked}");
        }
        for free in ["example.com", "badexample.com", "example.com.org", "a.example.org", "[::1]:80", ""] {
            assert!(!list.blocks(free), "{free}");
        }
    }

    #[test]
    fn a_domain_without_a_dot_means_itself_too() {
        let list = Blocklist::parse("Example.com\n internal");
        assert!(list.blocks("example.com:443") && list.blocks("a.example.com") && list.blocks("x.internal"));
        assert!(!list.blocks("badexample.com"));
    }
}
