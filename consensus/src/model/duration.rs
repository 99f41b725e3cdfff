//! Time intervals as people write them.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A time interval in human-readable format, such as `1s`, `200ms` or `1m 30s`, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

/// The longest interval that can be written: one day.
const LONGEST_INTERVAL: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

impl Duration {
    /// An interval of `millis` milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// The interval as the standard library's type.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// The interval in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0.as_millis() as u64
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl std::str::FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = humantime::parse_duration(text)
            .map_err(|error| format!("expected a duration such as `1s`, `200ms` or `1m 30s`, got `{text}`: {error}"))?;
        if parsed > LONGEST_INTERVAL {
            return Err(format!("expected a duration of at most 24h, got `{text}`"));
        }
        if parsed.subsec_nanos() % 1_000_000 != 0 {
            return Err(format!("expected a duration in whole milliseconds, got `{text}`"));
        }
        Ok(Self(parsed))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as `1s`, `200ms` or `1m 30s`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> String {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::r#gen::SchemaGenerator) -> schemars::schema::Schema {
        use schemars::schema::{InstanceType, Metadata, SchemaObject};
        SchemaObject {
            instance_type: Some(InstanceType::String.into()),
            metadata: Some(Box::new(Metadata {
                description: Some(
                    "A time interval in human-readable format: numbers with units (`ms`, `s`, `m`, `h`), in whole \
                     milliseconds, at most 24h."
                        .into(),
                ),
                examples: vec![serde_json::json!("200ms")],
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
    fn bad_durations_are_refused_with_an_example_of_a_good_one() {
        for text in ["5 parsecs", "", "1", "-1s", "1s1", "99999999999999999999s"] {
            let error = text.parse::<Duration>().unwrap_err();
            assert!(error.contains("expected a duration"), "{text}: {error}");
        }
        assert!("25h".parse::<Duration>().unwrap_err().contains("at most 24h"));
        assert!("10us".parse::<Duration>().unwrap_err().contains("whole milliseconds"));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(millis in 0..=24 * 60 * 60 * 1000u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(duration.to_string().parse::<Duration>().unwrap(), duration);
        }

        /// Nearly right ones, too: numbers without end, and units of all kinds.
        #[test]
        fn any_text_is_read_or_refused(
            text in ".{0,40}|([0-9]{1,25} ?(ns|us|µs|ms|s|sec|m|min|h|d|w|M|month|y|years)? ?){1,6}",
        ) {
            let json = serde_json::to_string(&text).unwrap();
            let read = text.parse::<Duration>();
            if let Ok(duration) = &read {
                prop_assert!(duration.get() <= LONGEST_INTERVAL);
                prop_assert_eq!(duration.to_string().parse(), Ok(*duration));
            }
            prop_assert_eq!(serde_json::from_str::<Duration>(&json).ok(), read.ok());
        }

        /// So are other values than texts.
        #[test]
        fn what_is_no_text_is_refused(number: f64, whole: i64, yes: bool) {
            for json in [number.to_string(), whole.to_string(), yes.to_string(), format!("[\"{whole}s\"]"), "null".into()] {
                prop_assert!(serde_json::from_str::<Duration>(&json).is_err(), "{}", json);
            }
        }
    }
}
