//! The authentication throttle: wrong credentials are counted by the network that they come from, and too many of them
//! make it wait. So guessing is slow, whatever is guessed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How many wrong credentials may come from one network at once.
const BURST: f64 = 20.0;
/// How many of them are forgotten in a second.
const FORGOTTEN_PER_SECOND: f64 = 1.0;
/// How many networks have a count of their own; all others share one.
const NETWORK_LIMIT: usize = 4096;

/// The recent wrong credentials, by network.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// None is the network of all that have no count of their own.
    networks: HashMap<Option<IpAddr>, Count>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    failures: f64,
    at: Instant,
}

impl Count {
    fn at(self, now: Instant) -> f64 {
        let since: Duration = now.saturating_duration_since(self.at);
        (self.failures - since.as_secs_f64() * FORGOTTEN_PER_SECOND).max(0.0)
    }
}

impl Throttle {
    /// Whether credentials from `from` are refused without a look at them, right or wrong.
    pub(super) fn refuses(&self, from: IpAddr, now: Instant) -> bool {
        let own = self.networks.get(&Some(network(from)));
        let count = own.or_else(|| self.networks.get(&None).filter(|_| self.networks.len() > NETWORK_LIMIT));
        count.is_some_and(|count| count.at(now) > BURST - 1.0)
    }

    /// Counts a wrong credential. Whether it is the first one recently.
    pub(super) fn count(&mut self, from: IpAddr, now: Instant) -> bool {
        let mut key = Some(network(from));
        if !self.networks.contains_key(&key) && self.networks.len() >= NETWORK_LIMIT {
            self.networks.retain(|_, count| count.at(now) > 0.0);
            if self.networks.len() >= NETWORK_LIMIT {
                key = None;
            }
        }
        let count = self.networks.entry(key).or_insert(Count { failures: 0.0, at: now });
        let before = count.at(now);
        *count = Count { failures: (before + 1.0).min(BURST), at: now };
        before == 0.0
    }
}

/// The network of an address: whoever has one address of IPv6 has 64 bits of them.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) >> 64 << 64).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn too_many_at_once_are_refused_and_forgotten_with_time() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let guesser = ip("10.0.0.9");
        let mut looked_at = 0;
        for _ in 0..1000 {
            if !throttle.refuses(guesser, now) {
                assert_eq!(throttle.count(guesser, now), looked_at == 0);
                looked_at += 1;
            }
        }
        assert_eq!(looked_at, 20);
        assert!(!throttle.refuses(ip("10.0.0.8"), now), "another network");
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(!throttle.refuses(guesser, later(1)));
        throttle.count(guesser, later(1));
        assert!(throttle.refuses(guesser, later(1)));
        assert!(throttle.count(guesser, later(60)), "all that is forgotten");
    }

    #[test]
    fn a_network_of_ipv6_has_one_count_and_a_mapped_address_is_that_of_ipv4() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for host in 0..20_u16 {
            throttle.count(ip(&format!("2001:db8::{host:x}")), now);
        }
        assert!(throttle.refuses(ip("2001:db8::ffff:1:2:3"), now));
        assert!(!throttle.refuses(ip("2001:db8:0:1::1"), now));
        assert_eq!(network(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }

    #[test]
    fn many_networks_do_not_fill_the_memory() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for host in 0..3 * NETWORK_LIMIT as u32 {
            throttle.count(IpAddr::from((10 << 24 | host).to_be_bytes()), now);
        }
        assert!(throttle.networks.len() <= NETWORK_LIMIT + 1);
        assert!(throttle.refuses(ip("192.0.2.1"), now), "a new network shares a count that is full");
        throttle.count(ip("192.0.2.1"), now + Duration::from_secs(60));
        assert!(throttle.networks.len() <= 2);
    }
}
