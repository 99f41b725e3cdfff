//! The settings of a database as people read them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The settings of a database as it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "DbConfig::example")]
pub struct DbConfig {
    /// Version of the server, as it tells it.
    pub version: String,
    /// Identifies the database cluster and its physical copies: a number of 64 bits, as text.
    pub system_identifier: String,
    /// Settings that differ from the built-in default, by name.
    pub settings: Vec<DbSetting>,
}

/// A setting of a database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "DbSetting::example")]
pub struct DbSetting {
    /// Its name.
    pub name: String,
    /// Its value, in `unit` where it has one. Secrets are masked.
    pub value: String,
    /// Unit of the value, as PostgreSQL names it, where it has one.
    pub unit: Option<String>,
    /// Where the value comes from, as PostgreSQL names it.
    pub source: String,
    /// Whether a changed value waits for a restart of the database.
    pub pending_restart: bool,
}

impl DbConfig {
    fn example() -> Self {
        Self {
            version: "15.4".into(),
            system_identifier: "7286543210123456789".into(),
            settings: vec![DbSetting::example()],
        }
    }
}

impl DbSetting {
    fn example() -> Self {
        Self {
            name: "shared_buffers".into(),
            value: "16384".into(),
            unit: Some("8kB".into()),
            source: "configuration file".into(),
            pending_restart: false,
        }
    }
}
