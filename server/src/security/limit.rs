//! Wrong credentials, counted by where they come from: guessing is made slow, whatever is guessed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// So many may come at once from one place.
const AT_ONCE: f64 = 20.0;
/// So many a second are forgotten.
const A_SECOND: f64 = 1.0;
/// So many places are counted apart; whoever has more addresses than that shares a count.
const PLACES: usize = 4096;

/// The wrong credentials of late.
#[derive(Debug, Default)]
pub(super) struct Failures {
    places: HashMap<Option<IpAddr>, Count>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    failures: f64,
    at: Instant,
}

impl Count {
    fn at(self, now: Instant) -> f64 {
        let since: Duration = now.saturating_duration_since(self.at);
        (self.failures - since.as_secs_f64() * A_SECOND).max(0.0)
    }
}

impl Failures {
    /// Whether nothing from `from` is to be looked at now, be it right or wrong.
    pub(super) fn are_too_many(&self, from: IpAddr, now: Instant) -> bool {
        let own = self.places.get(&Some(network(from)));
        let count = own.or_else(|| self.places.get(&None).filter(|_| self.places.len() > PLACES));
        count.is_some_and(|count| count.at(now) > AT_ONCE - 1.0)
    }

    /// Counts a wrong one, and tells whether it is the first of late.
    pub(super) fn add(&mut self, from: IpAddr, now: Instant) -> bool {
        let mut place = Some(network(from));
        if !self.places.contains_key(&place) && self.places.len() >= PLACES {
            self.places.retain(|_, count| count.at(now) > 0.0);
            if self.places.len() >= PLACES {
                place = None;
            }
        }
        let count = self.places.entry(place).or_insert(Count { failures: 0.0, at: now });
        let before = count.at(now);
        *count = Count { failures: (before + 1.0).min(AT_ONCE), at: now };
        before == 0.0
    }
}

/// Who has one address of IPv6 has 64 bits of them.
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
    fn many_at_once_are_too_many_and_forgotten_with_time() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let guesser = ip("10.0.0.9");
        let mut looked_at = 0;
        for _ in 0..1000 {
            if !failures.are_too_many(guesser, now) {
                assert_eq!(failures.add(guesser, now), looked_at == 0);
                looked_at += 1;
            }
        }
        assert_eq!(looked_at, 20);
        assert!(!failures.are_too_many(ip("10.0.0.8"), now), "another place");
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(!failures.are_too_many(guesser, later(1)));
        failures.add(guesser, later(1));
        assert!(failures.are_too_many(guesser, later(1)));
        assert!(failures.add(guesser, later(60)), "all that is forgotten");
    }

    #[test]
    fn a_network_of_ipv6_is_one_place_and_a_mapped_address_is_that_of_ipv4() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for host in 0..20_u16 {
            failures.add(ip(&format!("2001:db8::{host:x}")), now);
        }
        assert!(failures.are_too_many(ip("2001:db8::ffff:1:2:3"), now));
        assert!(!failures.are_too_many(ip("2001:db8:0:1::1"), now));
        assert_eq!(network(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }

    #[test]
    fn many_places_do_not_fill_the_memory() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for host in 0..3 * PLACES as u32 {
            failures.add(IpAddr::from((10 << 24 | host).to_be_bytes()), now);
        }
        assert!(failures.places.len() <= PLACES + 1);
        assert!(failures.are_too_many(ip("192.0.2.1"), now), "a new place shares a count that is full");
        failures.add(ip("192.0.2.1"), now + Duration::from_secs(60));
        assert!(failures.places.len() <= 2);
    }
}
