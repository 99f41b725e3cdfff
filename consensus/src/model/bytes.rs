//! Amounts of data as people write them.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An amount of data in bytes, written as `1048576`, or with a unit as `16MB`. Units are powers of 1024, as in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// The units, the largest first.
const UNITS: [(&str, u32); 5] = [("TB", 40), ("GB", 30), ("MB", 20), ("kB", 10), ("B", 0)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |shift: &u32| self.0.trailing_zeros() >= *shift && self.0 != 0;
        match UNITS.iter().find(|(_, shift)| whole(shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("expected a number of bytes such as `1048576` or `16MB` (B, kB, MB, GB, TB), got `{text}`");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.trim_start();
        let shift = match unit {
            "" => 0,
            // People seldom write the units in a URL with care.
            _ => UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, shift)| *shift)
                .ok_or_else(wrong)?,
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> String {
        "Bytes".into()
    }

    // Only parameters are of this type, and dropshot takes no example from a schema that only parameters refer to.
    fn is_referenceable() -> bool {
        false
    }

    fn json_schema(_: &mut schemars::r#gen::SchemaGenerator) -> schemars::schema::Schema {
        use schemars::schema::{InstanceType, Metadata, SchemaObject};
        SchemaObject {
            instance_type: Some(InstanceType::String.into()),
            metadata: Some(Box::new(Metadata {
                description: Some(
                    "An amount of data: a number of bytes, or a number with a unit (`B`, `kB`, `MB`, `GB`, `TB`: powers \
                     of 1024)."
                        .into(),
                ),
                examples: vec![serde_json::json!("16MB")],
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
    fn amounts_are_read_with_and_without_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("16MB", 16 << 20),
            ("16mb", 16 << 20),
            ("16 MB", 16 << 20),
            ("64kB", 64 << 10),
            ("1GB", 1 << 30),
            ("2TB", 2 << 40),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "MB", "-1", "1.5MB", "1 parsec", "1MBs", "18446744073709551616", "99999999999TB", "０"] {
            assert!(text.parse::<Bytes>().unwrap_err().contains("expected a number of bytes"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(bytes: u64, shift in 0..64u32) {
            let bytes = Bytes(bytes >> shift << (shift / 2));
            prop_assert_eq!(bytes.to_string().parse::<Bytes>().unwrap(), bytes);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            let _ = text.parse::<Bytes>();
        }
    }
}
