//! Statements that do not write.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use schemars::r#gen::SchemaGenerator;
use schemars::schema::{InstanceType, Schema, SchemaObject, StringValidation};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Hashes of the statements that do not write anything: one element for each database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(example = "ReadonlyStatements::example")]
pub struct ReadonlyStatements(pub Vec<DatabaseStatements>);

/// The statements of one database that do not write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "DatabaseStatements::example")]
pub struct DatabaseStatements {
    /// Name of the database.
    pub database: String,
    /// How the hashes are computed: `pg_query-fingerprint` is the fingerprint of libpg_query with the options
    /// `FULL_RELNAME`, `RANGEVAR_IGNORE_ALIASES` and `RANGEVAR_INCLUDE_SCHEMA`.
    pub algorithm: String,
    /// Version of that algorithm, with the major version of its parser. Hashes of different versions do not compare.
    pub version: String,
    /// Major version of the PostgreSQL that runs the statements.
    pub postgresql: u32,
    /// Grows with each change of this element.
    pub generation: u64,
    /// The hashes, in ascending order, each at most once. A hash has 16 hexadecimal digits.
    pub hashes: Vec<StatementHash>,
}

/// Hash of a statement: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatementHash(pub u64);

impl ReadonlyStatements {
    fn example() -> Self {
        Self(vec![DatabaseStatements::example()])
    }
}

impl DatabaseStatements {
    /// The only algorithm so far.
    pub const ALGORITHM: &str = "pg_query-fingerprint";
    /// Its version: that of the fingerprint, and of the grammar by which the statements are parsed.
    pub const VERSION: &str = "3.18";

    fn example() -> Self {
        Self {
            database: "postgres".into(),
            algorithm: Self::ALGORITHM.into(),
            version: Self::VERSION.into(),
            postgresql: 15,
            generation: 12,
            hashes: vec![StatementHash(0x50fd_e206_2600_9aba)],
        }
    }
}

impl fmt::Display for StatementHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for StatementHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let wrong = || format!("expected 16 hexadecimal digits, got `{text:.40}`");
        u64::from_str_radix(text, 16).ok().filter(|_| digits).map(Self).ok_or_else(wrong)
    }
}

// Digits in text, and a number elsewhere, so that a log entry with thousands of hashes stays small.
impl Serialize for StatementHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(self),
            false => serializer.serialize_u64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for StatementHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => String::deserialize(deserializer)?.parse().map_err(de::Error::custom),
            false => u64::deserialize(deserializer).map(Self),
        }
    }
}

impl JsonSchema for StatementHash {
    fn schema_name() -> String {
        "StatementHash".into()
    }

    fn is_referenceable() -> bool {
        false
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let string = StringValidation { pattern: Some("^[0-9a-f]{16}$".into()), ..Default::default() };
        SchemaObject {
            instance_type: Some(InstanceType::String.into()),
            string: Some(Box::new(string)),
            ..Default::default()
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_sixteen_digits_in_text() {
        let hash = StatementHash(0x0123_4567_89ab_cdef);
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(text, "\"0123456789abcdef\"");
        assert_eq!(serde_json::from_str::<StatementHash>(&text).unwrap(), hash);
        for odd in ["", "123456789abcdef", "0123456789abcdefa", "+123456789abcdef", "0123456789abcdeg"] {
            assert!(odd.parse::<StatementHash>().is_err(), "{odd}");
        }
    }
}
