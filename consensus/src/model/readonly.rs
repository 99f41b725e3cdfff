//! Statements that do not write.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Hashes of the statements that do not write anything, an element a database.
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
    /// How the hashes are made.
    pub algorithm: String,
    /// Version of that algorithm: hashes of different versions do not compare.
    pub version: String,
    /// Major version of the PostgreSQL that runs the statements.
    pub postgresql: u32,
    /// Grows with each change of this element.
    pub generation: u64,
    /// The hashes, 16 hexadecimal digits, each at most once.
    pub hashes: Vec<String>,
}

impl ReadonlyStatements {
    fn example() -> Self {
        Self(vec![DatabaseStatements::example()])
    }
}

impl DatabaseStatements {
    fn example() -> Self {
        Self {
            database: "postgres".into(),
            algorithm: "pg_query-fingerprint".into(),
            version: "3".into(),
            postgresql: 15,
            generation: 12,
            hashes: vec!["50fde20626009aba".into()],
        }
    }
}
