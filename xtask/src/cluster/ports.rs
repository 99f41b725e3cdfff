//! Ports on which nobody listens.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use anyhow::{Context, Result, bail};

/// Below the range that the kernel uses for outgoing connections: one of those could take a port while its node
/// restarts.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Finds `count` different free ports. The search begins at a port that depends on the process, so that two demos
/// seldom meet.
pub(crate) fn free(count: usize) -> Result<Vec<u16>> {
    let start = (std::process::id() % 1000 * 12) as u16;
    let candidates = (RANGE.start + start..RANGE.end).chain(RANGE.start..RANGE.start + start);
    // All are kept open until all are found.
    let held: Vec<TcpListener> =
        candidates.filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()).take(count).collect();
    if held.len() < count {
        bail!(
            "{count} free ports on 127.0.0.1 are needed, from {} to {}; found {}",
            RANGE.start,
            RANGE.end,
            held.len()
        );
    }
    Ok(held.iter().filter_map(|listener| Some(listener.local_addr().ok()?.port())).collect())
}

/// `COUNT` addresses on this machine with free ports.
pub(crate) fn local<const COUNT: usize>() -> Result<[SocketAddrV4; COUNT]> {
    let addresses: Vec<_> = free(COUNT)?.into_iter().map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).collect();
    addresses.try_into().ok().with_context(|| format!("expected {COUNT} ports"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_are_different_and_free() {
        let ports = free(6).unwrap();
        let listeners: Vec<_> =
            ports.iter().map(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap()).collect();
        assert_eq!(listeners.len(), 6);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }
}
