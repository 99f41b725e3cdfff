//! The nodes that a client knows, and which one it asks first.

use std::net::SocketAddr;

use reqwest::Url;

use crate::Error;
use crate::model::{ClusterMap, Leader};

/// The nodes that are known, as the addresses of their APIs.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// The nodes that the client was given.
    seeds: Vec<String>,
    /// The nodes of the last map.
    learned: Vec<String>,
    /// The node that answered last.
    pub(super) good: Option<String>,
    /// The leader, as far as is known.
    pub(super) leader: Option<String>,
}

impl Nodes {
    pub(super) fn new(seeds: Vec<String>) -> Self {
        Self { seeds, ..Self::default() }
    }

    /// The nodes in the order in which they are asked.
    pub(super) fn candidates(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for address in self.good.iter().chain(&self.leader).chain(&self.seeds).chain(&self.learned) {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        all
    }

    /// Puts the node after the one that answered last at the front, so that every node gets its turn.
    pub(super) fn ask_another_first(&mut self) {
        let mut all: Vec<&String> = self.seeds.iter().collect();
        all.extend(self.learned.iter().filter(|address| !self.seeds.contains(address)));
        let last = all.iter().position(|known| Some(*known) == self.good.as_ref());
        let next = last.map_or(0, |last| (last + 1) % all.len());
        self.good = all.get(next).map(|address| (*address).clone());
    }

    /// Adds the nodes of a map that are not known yet. The map may be an old one, so no node is removed.
    pub(super) fn meet(&mut self, map: &ClusterMap, teller: &str) {
        for address in map.nodes.values().map(|node| beside(node.api_address(), teller)) {
            if !self.learned.contains(&address) {
                self.learned.push(address);
            }
        }
    }

    /// Replaces the learned nodes and the leader by those of a map, which the node at `teller` answered with.
    pub(super) fn learn(&mut self, map: &ClusterMap, teller: &str) {
        self.learned = map.nodes.values().map(|node| beside(node.api_address(), teller)).collect();
        let leader = map.leader.and_then(|leader| map.nodes.get(&leader));
        self.leader = leader.map(|leader| beside(leader.api_address(), teller));
    }
}

/// The address of the leader that the node at `teller` named.
pub(super) fn address_of(leader: &Leader, teller: &str) -> String {
    beside(SocketAddr::new(leader.ip, leader.api_port.get()), teller)
}

/// The address of a node that the node at `teller` named. It has the scheme of `teller`, because the nodes of a cluster
/// agree on whether they speak TLS.
pub(super) fn beside(address: SocketAddr, teller: &str) -> String {
    let scheme = teller.split_once("://").map_or("http", |(scheme, _)| scheme);
    format!("{scheme}://{address}")
}

/// An address in the form that is compared and that the generated client takes: with a scheme, and without a slash at
/// the end.
pub(super) fn parse(address: &str) -> Result<String, Error> {
    let wrong = |reason: String| Error::Address { address: address.into(), reason };
    let text = if address.contains("://") { address.into() } else { format!("http://{address}") };
    let url = Url::parse(&text).map_err(|error| wrong(error.to_string()))?;
    match url.scheme() {
        "http" => {}
        "https" if cfg!(feature = "tls") => {}
        "https" => return Err(wrong("`https` needs the feature `tls`".into())),
        other => return Err(wrong(format!("expected `http` or `https`, got `{other}`"))),
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("expected nothing after the path".into()));
    }
    Ok(url.as_str().trim_end_matches('/').into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_brought_to_one_form() {
        for (given, expected) in [
            ("10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("http://10.0.0.1:8080/", "http://10.0.0.1:8080"),
            ("http://[2001:DB8::1]:8080", "http://[2001:db8::1]:8080"),
            ("http://node-1:8080/qluster/", "http://node-1:8080/qluster"),
        ] {
            assert_eq!(parse(given).unwrap(), expected);
        }
        for given in ["", "http://", "ftp://10.0.0.1", "http://10.0.0.1:port", "http://10.0.0.1/?node=1"] {
            assert!(matches!(parse(given), Err(Error::Address { .. })), "{given}");
        }
        assert_eq!(parse("https://10.0.0.1:8080").is_ok(), cfg!(feature = "tls"));
    }

    #[test]
    fn a_node_told_of_is_reached_as_its_teller_was() {
        let address: SocketAddr = "[2001:db8::1]:8080".parse().unwrap();
        assert_eq!(beside(address, "https://node-1:8080"), "https://[2001:db8::1]:8080");
    }

    #[test]
    fn every_node_has_its_turn_and_the_last_that_answered_goes_first() {
        let node = |name: &str| name.to_owned();
        let (seeds, learned) = (vec![node("a"), node("b")], vec![node("b"), node("c")]);
        let mut nodes = Nodes { seeds, learned, ..Nodes::default() };
        assert_eq!(nodes.candidates(), ["a", "b", "c"]);
        nodes.good = Some(node("b"));
        assert_eq!(nodes.candidates(), ["b", "a", "c"]);
        for expected in ["c", "a", "b"] {
            nodes.ask_another_first();
            assert_eq!(nodes.candidates()[0], expected);
        }
        nodes.good = Some(node("gone"));
        nodes.ask_another_first();
        assert_eq!(nodes.candidates(), ["a", "b", "c"]);
    }
}
