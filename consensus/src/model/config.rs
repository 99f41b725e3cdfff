//! The replicated settings, and the rules that they must keep.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Duration;

/// Cluster settings. They drive consensus on every node, live, without a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "Config::default")]
pub struct Config {
    /// If within this time (plus up to half as much again, at random) the node does not find a leader, it initiates
    /// a pre-election. It is also the leader's lease. Default 1s.
    pub node_timeout: Duration,
    /// During this time, the pre-voting must be completed. Default 500ms.
    pub pre_voting_timeout: Duration,
    /// If within this time the voting does not produce a leader, then the transition to the pre-voting stage occurs.
    /// Default 1s.
    pub leader_voting_timeout: Duration,
    /// Frequency with which the leader sends a heartbeat. Default 200ms.
    pub heartbeat_interval: Duration,
    /// The number of nodes to which a log is replicated before it is confirmed (0: weak replication, the leader is
    /// enough). It counts voters, the leader among them. It sets PostgreSQL's `synchronous_standby_names` likewise.
    /// The cluster's own log is never confirmed below a majority. Default 0.
    pub replication_factor: u32,
    /// If enabled, the value n/2 + 1 is inserted into `replication-factor`, n being the number of voters, and kept
    /// there as voters come and go. Default true.
    pub quorum_replication: bool,
    /// The time interval after which a log is replicated again if no response has been received. Default 500ms.
    pub replication_retry_interval: Duration,
    /// If enabled, the leader removes nodes from the cluster that are not visible to half of the cluster. Default
    /// false.
    pub autoremove_enabled: bool,
    /// For autoremove to work, the number of cluster nodes must be greater than this value. Default 3.
    pub autoremove_minimum: u32,
}

/// Settings to change. Those that are not given stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default, remote = "Self")]
#[schemars(example = "ConfigUpdate::example")]
pub struct ConfigUpdate {
    /// See `Config`.
    pub node_timeout: Option<Duration>,
    /// See `Config`.
    pub pre_voting_timeout: Option<Duration>,
    /// See `Config`.
    pub leader_voting_timeout: Option<Duration>,
    /// See `Config`. Three intervals must fit into `node-timeout`.
    pub heartbeat_interval: Option<Duration>,
    /// See `Config`. It is refused while `quorum-replication` is enabled, which sets it.
    pub replication_factor: Option<u32>,
    /// See `Config`.
    pub quorum_replication: Option<bool>,
    /// See `Config`.
    pub replication_retry_interval: Option<Duration>,
    /// See `Config`.
    pub autoremove_enabled: Option<bool>,
    /// See `Config`.
    pub autoremove_minimum: Option<u32>,
}

/// The shortest interval that a setting may have. An ordinary machine does not schedule its processes more exactly.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// The longest interval that a setting may have. A cluster that waits longer is not highly available.
const LONGEST_INTERVAL: Duration = Duration::from_millis(60 * 60 * 1000);

impl Default for Config {
    fn default() -> Self {
        Self {
            node_timeout: Duration::from_millis(1000),
            pre_voting_timeout: Duration::from_millis(500),
            leader_voting_timeout: Duration::from_millis(1000),
            heartbeat_interval: Duration::from_millis(200),
            replication_factor: 0,
            quorum_replication: true,
            replication_retry_interval: Duration::from_millis(500),
            autoremove_enabled: false,
            autoremove_minimum: 3,
        }
    }
}

impl Config {
    /// These settings after `update`, in a cluster of `voters` voters.
    ///
    /// # Errors
    ///
    /// The rule that they would break, in a sentence.
    pub fn updated(&self, update: &ConfigUpdate, voters: usize) -> Result<Self, String> {
        let next = Self {
            node_timeout: update.node_timeout.unwrap_or(self.node_timeout),
            pre_voting_timeout: update.pre_voting_timeout.unwrap_or(self.pre_voting_timeout),
            leader_voting_timeout: update.leader_voting_timeout.unwrap_or(self.leader_voting_timeout),
            heartbeat_interval: update.heartbeat_interval.unwrap_or(self.heartbeat_interval),
            replication_factor: update.replication_factor.unwrap_or(self.replication_factor),
            quorum_replication: update.quorum_replication.unwrap_or(self.quorum_replication),
            replication_retry_interval: update.replication_retry_interval.unwrap_or(self.replication_retry_interval),
            autoremove_enabled: update.autoremove_enabled.unwrap_or(self.autoremove_enabled),
            autoremove_minimum: update.autoremove_minimum.unwrap_or(self.autoremove_minimum),
        };
        if update.replication_factor.is_some() {
            if next.quorum_replication {
                return Err("replication-factor is set by quorum-replication: disable quorum-replication as well, in \
                            the same request or before"
                    .into());
            }
            if next.replication_factor as usize > voters {
                return Err(format!(
                    "replication-factor is {}, expected at most {voters}, the number of voters",
                    next.replication_factor
                ));
            }
        }
        next.check()?;
        Ok(next.with_voters(voters))
    }

    /// These settings once the cluster has `voters` voters.
    pub fn with_voters(mut self, voters: usize) -> Self {
        if self.quorum_replication {
            self.replication_factor = u32::try_from(voters / 2 + 1).unwrap_or(u32::MAX);
        }
        self
    }

    /// How long before the end of its lease the leader starts to fence its database, so that the database serves nobody
    /// when the lease ends. It is a quarter of the lease: at least three heartbeats fit into a lease, so a heartbeat that
    /// was answered in time leaves two thirds of it.
    pub fn fencing_deadline(&self) -> std::time::Duration {
        Self::fencing_deadline_of(self.node_timeout.get())
    }

    /// The same for a lease that was granted for `length`.
    pub(crate) fn fencing_deadline_of(length: std::time::Duration) -> std::time::Duration {
        length / 4
    }

    /// Checks the timing rule, and the bounds within which the settings make sense.
    fn check(&self) -> Result<(), String> {
        for (name, value) in [
            ("node-timeout", self.node_timeout),
            ("pre-voting-timeout", self.pre_voting_timeout),
            ("leader-voting-timeout", self.leader_voting_timeout),
            ("heartbeat-interval", self.heartbeat_interval),
            ("replication-retry-interval", self.replication_retry_interval),
        ] {
            if value < SHORTEST_INTERVAL || value > LONGEST_INTERVAL {
                return Err(format!("{name} is {value}, expected {SHORTEST_INTERVAL} to {LONGEST_INTERVAL}"));
            }
        }
        if self.heartbeat_interval.as_millis() * 3 > self.node_timeout.as_millis() {
            return Err(format!(
                "three times heartbeat-interval ({}) is more than node-timeout ({}): a leader that misses two \
                 heartbeats would be replaced",
                self.heartbeat_interval, self.node_timeout
            ));
        }
        if self.autoremove_minimum == 0 {
            return Err("autoremove-minimum is 0, expected at least 1".into());
        }
        Ok(())
    }
}

impl Serialize for ConfigUpdate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

// As derived, but a format with names (JSON) has to give them: a list of settings without names is refused.
impl<'de> Deserialize<'de> for ConfigUpdate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = ConfigUpdate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with settings such as `{\"node-timeout\": \"2s\"}`")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<ConfigUpdate, A::Error> {
                ConfigUpdate::deserialize(MapAccessDeserializer::new(map))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_map(Visitor)
        } else {
            Self::deserialize(deserializer)
        }
    }
}

impl ConfigUpdate {
    fn example() -> Self {
        Self { node_timeout: Some(Duration::from_millis(2000)), ..Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn update(json: &str) -> Result<Config, String> {
        let update: ConfigUpdate = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Config::default().updated(&update, 3)
    }

    #[test]
    fn a_setting_that_is_not_given_stays() {
        let config = update(r#"{"node-timeout": "2s"}"#).unwrap();
        let expected = Config { node_timeout: Duration::from_millis(2000), replication_factor: 2, ..Config::default() };
        assert_eq!(config, expected);
    }

    #[test]
    fn quorum_replication_keeps_the_factor_at_a_majority() {
        for (voters, factor) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
            assert_eq!(Config::default().with_voters(voters).replication_factor, factor);
        }
        let off = update(r#"{"quorum-replication": false, "replication-factor": 0}"#).unwrap();
        assert_eq!(off.with_voters(5).replication_factor, 0);
    }

    #[test]
    fn updates_that_break_a_rule_are_refused_with_it() {
        for (json, expected) in [
            (r#"{"node-timeout": "500ms"}"#, "three times heartbeat-interval"),
            (r#"{"heartbeat-interval": "334ms"}"#, "three times heartbeat-interval"),
            (r#"{"node-timeout": "5 parsecs"}"#, "expected a duration"),
            (r#"{"pre-voting-timeout": "1ms"}"#, "expected 10ms to 1h"),
            (r#"{"leader-voting-timeout": "2h"}"#, "expected 10ms to 1h"),
            (r#"{"replication-factor": 2}"#, "quorum-replication"),
            (r#"{"replication-factor": 4, "quorum-replication": false}"#, "at most 3"),
            (r#"{"replication-factor": -1}"#, "invalid value"),
            (r#"{"autoremove-minimum": 0}"#, "at least 1"),
            (r#"{"node-timeout": 5}"#, "expected a duration such as `1s`"),
            (r#"["2s"]"#, "expected an object with settings"),
            (r#"{"node-timeuot": "1s"}"#, "unknown field `node-timeuot`, expected one of"),
        ] {
            let error = update(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    proptest! {
        /// Any update makes settings that keep the rules, or is refused.
        #[test]
        fn any_update_keeps_the_rules_or_is_refused(
            times in prop::collection::vec(prop::option::of(0..5_000_000u64), 5),
            factor in prop::option::of(0..9u32),
            quorum: Option<bool>,
            minimum in prop::option::of(0..5u32),
            voters in 0..9usize,
        ) {
            let time = |at: usize| times[at].map(Duration::from_millis);
            let update = ConfigUpdate {
                node_timeout: time(0), pre_voting_timeout: time(1), leader_voting_timeout: time(2),
                heartbeat_interval: time(3), replication_retry_interval: time(4), replication_factor: factor,
                quorum_replication: quorum, autoremove_enabled: None, autoremove_minimum: minimum,
            };
            if let Ok(config) = Config::default().updated(&update, voters) {
                prop_assert_eq!(config.check(), Ok(()));
                prop_assert_eq!(config.updated(&ConfigUpdate::default(), voters), Ok(config.clone()));
                let json = serde_json::to_string(&config).unwrap();
                prop_assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
            }
        }

        #[test]
        fn any_json_is_an_update_or_refused(
            name in "node-timeout|heartbeat-interval|replication-factor|quorum-replication|autoremove-minimum|.{0,9}",
            value in "\\[*|\"[0-9a-z ]{0,9}\"?|-?[0-9.eE]{0,30}|true|null|\\PC{0,9}",
        ) {
            let _ = update(&format!("{{\"{name}\": {value}}}"));
            let _ = update(&value);
        }
    }

    #[test]
    fn a_fence_fits_between_two_missed_heartbeats_and_the_end_of_the_lease() {
        let config = update(r#"{"heartbeat-interval": "333ms"}"#).unwrap();
        assert!(config.heartbeat_interval.get() + config.fencing_deadline() < config.node_timeout.get());
    }
}
