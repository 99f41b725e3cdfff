//! Bearer tokens, and their kinds.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What a token allows. A later kind allows all that an earlier one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Reading.
    Read,
    /// Changing.
    Admin,
}

/// Tokens, as hashes: the time that a comparison takes says nothing about them.
#[derive(Default)]
pub(super) struct Tokens {
    admin: Vec<[u8; 32]>,
    read: Vec<[u8; 32]>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} admin and {} read tokens", self.admin.len(), self.read.len())
    }
}

impl Tokens {
    pub(super) fn new(admin: &[SecretString], read: &[SecretString]) -> Self {
        let hashes = |tokens: &[SecretString]| tokens.iter().map(|token| hash(token.expose_secret())).collect();
        Self { admin: hashes(admin), read: hashes(read) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.admin.is_empty() && self.read.is_empty()
    }

    /// What a token allows; None if it is not one of these.
    pub(super) fn kind(&self, token: &str) -> Option<Kind> {
        let given = hash(token);
        // The token is compared with each, also after a match.
        let among = |known: &[[u8; 32]]| {
            let found = known.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&given));
            bool::from(found)
        };
        let (admin, read) = (among(&self.admin), among(&self.read));
        match (admin, read) {
            (true, _) => Some(Kind::Admin),
            (false, true) => Some(Kind::Read),
            (false, false) => None,
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The token of a request, or what is wrong with its headers.
pub(super) fn bearer(headers: &http::HeaderMap) -> Result<&str, &'static str> {
    let mut given = headers.get_all(http::header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err("expected one header `Authorization: Bearer TOKEN`");
    };
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    match scheme.eq_ignore_ascii_case("bearer") {
        true => Ok(token.trim()),
        false => Err("expected the header `Authorization` to be `Bearer TOKEN`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(texts: &[&str]) -> Vec<SecretString> {
        texts.iter().map(|text| SecretString::from(*text)).collect()
    }

    #[test]
    fn old_and_new_tokens_count_and_a_token_of_both_kinds_is_the_greater() {
        let tokens = Tokens::new(&secrets(&["new", "old", "both"]), &secrets(&["read", "both"]));
        for (token, expected) in [
            ("new", Some(Kind::Admin)),
            ("old", Some(Kind::Admin)),
            ("both", Some(Kind::Admin)),
            ("read", Some(Kind::Read)),
            ("rea", None),
            ("", None),
        ] {
            assert_eq!(tokens.kind(token), expected, "{token}");
        }
    }

    #[test]
    fn a_request_has_one_bearer_token() {
        let headers = |values: &[&str]| {
            let mut headers = http::HeaderMap::new();
            for value in values {
                headers.append(http::header::AUTHORIZATION, value.parse().unwrap());
            }
            headers
        };
        assert_eq!(bearer(&headers(&["Bearer abc"])), Ok("abc"));
        assert_eq!(bearer(&headers(&["bearer  abc "])), Ok("abc"));
        for wrong in [&[][..], &["Bearer a", "Bearer b"], &["Basic abc"], &["abc"], &["Bearer"]] {
            assert!(bearer(&headers(wrong)).is_err(), "{wrong:?}");
        }
    }
}
