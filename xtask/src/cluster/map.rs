//! The cluster map that a node returns, and its summary in one line.

use std::fmt;
use std::net::SocketAddrV4;

use anyhow::{Context, Result};
use serde_json::Value;

/// The part of `/map` that is used here.
#[derive(Debug, PartialEq)]
pub(crate) struct Map {
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
    pub(crate) index: u64,
    reason: Option<String>,
    members: Vec<Member>,
}

/// A node of the map.
#[derive(Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) id: u64,
    api: SocketAddrV4,
    pub(crate) role: String,
    pub(crate) state: String,
    reason: Option<String>,
}

impl Map {
    /// The map, from the body of an answer to `GET /map`.
    pub(crate) fn parse(body: &str) -> Result<Self> {
        let map: Value = serde_json::from_str(body).with_context(|| format!("expected a map, got {body:?}"))?;
        let number = |name: &str| map[name].as_u64().with_context(|| format!("the map has no number `{name}`: {map}"));
        let nodes = map["nodes"].as_object().with_context(|| format!("the map has no object `nodes`: {map}"))?;
        let mut members = nodes.values().map(Member::parse).collect::<Result<Vec<_>>>()?;
        members.sort_by_key(|member| member.id);
        Ok(Self {
            leader: map["leader"].as_u64(),
            term: number("term")?,
            index: number("index")?,
            reason: text(&map["reason"]),
            members,
        })
    }

    /// The node whose API is at this address.
    pub(crate) fn member(&self, api: SocketAddrV4) -> Option<&Member> {
        self.members.iter().find(|member| member.api == api)
    }
}

impl Member {
    fn parse(node: &Value) -> Result<Self> {
        let field = |name: &str| text(&node[name]).with_context(|| format!("the node has no text `{name}`: {node}"));
        let api_port = node["api-port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let api_port = api_port.with_context(|| format!("the node has no port `api-port`: {node}"))?;
        Ok(Self {
            id: node["id"].as_u64().with_context(|| format!("the node has no number `id`: {node}"))?,
            api: SocketAddrV4::new(field("ip")?.parse().context("reading the node's `ip`")?, api_port),
            role: field("role")?,
            state: field("state")?,
            reason: text(&node["reason"]),
        })
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.leader, &self.reason) {
            (Some(leader), _) => write!(f, "node {leader} leads in term {}", self.term)?,
            (None, Some(reason)) => write!(f, "nobody leads, term {}: {reason}", self.term)?,
            (None, None) => write!(f, "nobody leads, term {}", self.term)?,
        }
        self.members.iter().try_for_each(|member| write!(f, " | {member}"))
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, role, state, reason, .. } = self;
        write!(f, "{id}: {role}, {state}")?;
        reason.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = r#"{
        "leader": 1, "reason": null, "term": 3, "index": 12, "config": {"node-timeout": "1s"},
        "nodes": {
            "10": {"id": 10, "ip": "127.0.0.1", "db-port": null, "api-port": 8083, "role": "listener",
                   "upgrade-to": "voter", "state": "unreachable", "reason": "no answer for 2s"},
            "1": {"id": 1, "ip": "127.0.0.1", "db-port": 5441, "api-port": 8081, "role": "voter",
                  "upgrade-to": "voter", "state": "up", "reason": null}
        }
    }"#;

    #[test]
    fn a_map_is_read_and_summed_up_in_a_line() {
        let map = Map::parse(MAP).unwrap();
        assert_eq!((map.leader, map.term, map.index), (Some(1), 3, 12));
        assert_eq!(map.member("127.0.0.1:8083".parse().unwrap()).unwrap().state, "unreachable");
        assert!(map.member("127.0.0.1:8082".parse().unwrap()).is_none());
        let expected = "node 1 leads in term 3 | 1: voter, up | 10: listener, unreachable (no answer for 2s)";
        assert_eq!(map.to_string(), expected);
    }

    #[test]
    fn a_map_without_a_leader_says_why() {
        let map = MAP.replace(r#""leader": 1, "reason": null"#, r#""leader": null, "reason": "no majority""#);
        let line = Map::parse(&map).unwrap().to_string();
        assert!(line.starts_with("nobody leads, term 3: no majority | 1: voter, up"), "{line}");
    }

    #[test]
    fn what_is_no_map_is_refused_with_what_is_missing() {
        for (body, expected) in [
            ("oops", "expected a map"),
            ("{}", "no object `nodes`"),
            (r#"{"nodes": {}, "term": 1}"#, "no number `index`"),
            (r#"{"nodes": {"1": {"id": 1}}}"#, "no port `api-port`"),
        ] {
            let error = format!("{:#}", Map::parse(body).unwrap_err());
            assert!(error.contains(expected), "{body}: {error}");
        }
    }
}
