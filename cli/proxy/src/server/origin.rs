//! Where a request comes from: the peer, or what trusted proxies say.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::OnceLock;

use spctl_host::HeaderList;

use super::stream::Peer;
use crate::config::Listener;

/// Who sent a request.
pub(super) struct Source {
    pub(super) address: Option<IpAddr>,
    /// It may give instructions.
    pub(super) is_internal: bool,
}

pub(super) fn source(headers: &HeaderList, listener: &Listener, peer: Peer) -> Source {
    let forwarded = || headers.get(b"x-forwarded-for").and_then(|list| std::str::from_utf8(list).ok());
    let from_right = |list: &str, n: usize| list.rsplit(',').nth(n).and_then(|one| one.trim().parse().ok());
    let address = match (listener.use_remote_address, listener.xff_num_trusted_hops) {
        (true, 0) => Some(peer.remote.ip()),
        (true, hops) => forwarded().and_then(|list| from_right(list, hops - 1)).or(Some(peer.remote.ip())),
        (false, hops) => forwarded().and_then(|list| from_right(list, hops)),
    };
    if listener.internal_addresses.is_empty() {
        return Source { address, is_internal: false };
    }
    // Behind other proxies only a request that passed one of them is theirs.
    let single = listener.use_remote_address != headers.contains(b"x-forwarded-for")
        && forwarded().is_none_or(|list| !list.contains(','));
    let inside = |address: IpAddr| listener.internal_addresses.iter().any(|range| is_within(address, *range));
    Source { address, is_internal: single && address.is_some_and(inside) }
}

fn is_within(address: IpAddr, (network, bits): (IpAddr, u8)) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(a.to_bits()), u128::from(n.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits(), n.to_bits(), 128),
        _ => return false,
    };
    let shift = u32::from(width - bits.min(width));
    address.checked_shr(shift) == network.checked_shr(shift)
}

/// What is added to `x-forwarded-for`: for a peer on this machine, the address
/// that others know the machine by.
pub(super) fn appended(peer: Peer) -> String {
    let remote = peer.remote.ip();
    if remote.is_loopback() { local_address().to_string() } else { remote.to_string() }
}

/// By which way packets would leave; none is sent.
fn local_address() -> IpAddr {
    static LOCAL: OnceLock<IpAddr> = OnceLock::new();
    *LOCAL.get_or_init(|| {
        let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
            socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
            socket.local_addr()
        });
        probe.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_begins_alike() {
        let ten = ("10.0.0.0".parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), 8);
        let address = |text: &str| text.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert!(is_within(address("10.9.8.7"), ten) && !is_within(address("11.0.0.1"), ten));
        assert!(!is_within(address("::1"), ten) && is_within(address("1.2.3.4"), (address("0.0.0.0"), 0)));
    }
}
