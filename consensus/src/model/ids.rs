//! The numbers that name things: nodes, terms, log entries, ports.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Identifies a node in its cluster. The cluster gives it when the node is added, and never gives it again after the
/// node was removed: a host that comes back gets a new id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(example = "NodeId::example")]
pub struct NodeId(pub u64);

/// Logical time of the cluster. It grows by at least one with each election, and each term has at most one leader
/// (Raft, section 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(example = "Term::example")]
pub struct Term(pub u64);

/// Position of an entry in the cluster's log, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(example = "LogIndex::example")]
pub struct LogIndex(pub u64);

/// A TCP port, 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(std::num::NonZeroU16);

impl NodeId {
    fn example() -> Self {
        Self(1)
    }
}

impl Term {
    fn example() -> Self {
        Self(7)
    }
}

impl LogIndex {
    fn example() -> Self {
        Self(42)
    }
}

impl Port {
    /// A port. None if `number` is 0.
    pub fn new(number: u16) -> Option<Self> {
        std::num::NonZeroU16::new(number).map(Self)
    }

    /// A port that is written in the code.
    ///
    /// # Panics
    ///
    /// If `number` is 0. In a constant, that happens when the program is compiled.
    pub const fn constant(number: u16) -> Self {
        match std::num::NonZeroU16::new(number) {
            Some(number) => Self(number),
            None => panic!("0 is no port"),
        }
    }

    /// The port's number.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl From<u64> for NodeId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for NodeId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        digits(text).map(Self).ok_or_else(|| format!("expected a node id (a whole number from 0), got `{text}`"))
    }
}

impl std::str::FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a port from 1 to 65535, got `{text}`");
        digits(text).and_then(|number| number.try_into().ok()).and_then(Port::new).ok_or_else(wrong)
    }
}

/// Reads a number that consists of digits alone. The standard library would accept `+1`, too.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Reads a whole number from a number, or from text as in paths and query strings. An error says what was `expected`.
/// A binary format holds a plain `u64`.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D, expected: &'static str) -> Result<u64, D::Error> {
    struct Visitor(&'static str);
    impl de::Visitor<'_> for Visitor {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            digits(text).ok_or_else(|| E::custom(format!("expected {}, got `{text}`", self.0)))
        }
    }
    if deserializer.is_human_readable() {
        deserializer.deserialize_any(Visitor(expected))
    } else {
        u64::deserialize(deserializer)
    }
}

// A plain number, and no newtype struct around one: the client's query strings can only hold plain values.
impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl Serialize for LogIndex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole_number(deserializer, "a node id (a whole number from 0)").map(Self)
    }
}

impl<'de> Deserialize<'de> for LogIndex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole_number(deserializer, "a log index (a whole number from 0)").map(Self)
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::from(self.get()))
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = whole_number(deserializer, "a port from 1 to 65535")?;
        u16::try_from(number)
            .ok()
            .and_then(Port::new)
            .ok_or_else(|| de::Error::custom(format!("expected a port from 1 to 65535, got `{number}`")))
    }
}

impl JsonSchema for Port {
    fn schema_name() -> String {
        "Port".into()
    }

    fn json_schema(_: &mut schemars::r#gen::SchemaGenerator) -> schemars::schema::Schema {
        use schemars::schema::{InstanceType, Metadata, NumberValidation, SchemaObject};
        SchemaObject {
            instance_type: Some(InstanceType::Integer.into()),
            format: Some("uint16".into()),
            number: Some(Box::new(NumberValidation {
                minimum: Some(1.0),
                maximum: Some(65535.0),
                ..Default::default()
            })),
            metadata: Some(Box::new(Metadata {
                description: Some("A TCP port, 1 to 65535.".into()),
                examples: vec![serde_json::json!(8080)],
                ..Default::default()
            })),
            ..Default::default()
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_port_is_read_from_numbers_and_from_text() {
        for (json, expected) in [("8080", 8080), ("\"8080\"", 8080), ("1", 1), ("65535", 65535)] {
            assert_eq!(serde_json::from_str::<Port>(json).unwrap().get(), expected);
        }
    }

    #[test]
    fn what_is_no_port_is_refused_with_what_was_expected() {
        for json in ["0", "70000", "-1", "\"http\"", "\"\"", "1.5", "null", "18446744073709551616", "\"+80\""] {
            let error = serde_json::from_str::<Port>(json).unwrap_err().to_string();
            assert!(error.contains("a port from 1 to 65535"), "{json}: {error}");
        }
    }

    #[test]
    fn what_is_no_node_id_is_refused_with_what_was_expected() {
        for json in ["-1", "\"-1\"", "\"+1\"", "\"one\"", "[]"] {
            let error = serde_json::from_str::<NodeId>(json).unwrap_err().to_string();
            assert!(error.contains("a node id (a whole number from 0)"), "{json}: {error}");
        }
    }

    proptest! {
        #[test]
        fn numbers_are_read_as_they_are_printed(id: u64, port in 1..=u16::MAX) {
            prop_assert_eq!(id.to_string().parse(), Ok(NodeId(id)));
            prop_assert_eq!(port.to_string().parse::<Port>().map(Port::get), Ok(port));
        }

        /// What is read is what was written, zeros before it aside.
        #[test]
        fn any_text_is_a_number_or_refused(text in "[-+ 0-9_.xe]{0,22}|\\PC{0,10}") {
            let bare = text.trim_start_matches('0');
            let json = serde_json::to_string(&text).unwrap();
            for read in [text.parse::<NodeId>().ok(), serde_json::from_str(&json).ok()].into_iter().flatten() {
                prop_assert_eq!(read, NodeId(if bare.is_empty() { 0 } else { bare.parse().unwrap() }));
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_digit()));
            }
            for read in [text.parse::<Port>().ok(), serde_json::from_str(&json).ok()].into_iter().flatten() {
                prop_assert_eq!(read.get().to_string(), bare);
            }
        }
    }
}
