//! Files with secrets.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use secrecy::SecretString;

use super::error::SecurityError;

/// A secret has at least so many characters: `openssl rand -hex 32` makes 64.
const SHORTEST: usize = 32;
/// So long may one be, and so many may be in a file: old ones are to go.
const LONGEST: usize = 512;
const MOST: usize = 8;
/// No file is larger.
const LARGEST: u64 = 1 << 20;

/// By which a change of a file shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, u64, Option<SystemTime>)>);

pub(super) fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok();
    Stamp(about.map(|about| (about.dev(), about.ino(), about.len(), about.modified().ok())))
}

/// The bytes of a file that may be public.
pub(super) fn public(path: &Path) -> Result<Vec<u8>, SecurityError> {
    read(path, |_| Ok(()))
}

/// The bytes of a file that others may neither read nor change. A group may read it: some systems give keys to one.
pub(super) fn private(path: &Path) -> Result<Vec<u8>, SecurityError> {
    read(path, |mode| match is_exposed(mode) {
        true => Err(SecurityError::Exposed { path: path.to_owned(), mode: mode & 0o777 }),
        false => Ok(()),
    })
}

fn is_exposed(mode: u32) -> bool {
    mode & 0o027 != 0
}

fn read(path: &Path, judge: impl FnOnce(u32) -> Result<(), SecurityError>) -> Result<Vec<u8>, SecurityError> {
    let failed = |source| SecurityError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    judge(file.metadata().map_err(failed)?.mode())?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The secrets of a file, one a line; the first is the one to use, the others are accepted as well. Empty lines and
/// those that begin with `#` do not count.
pub(super) fn secrets(path: &Path) -> Result<Vec<SecretString>, SecurityError> {
    let bytes = private(path)?;
    parse(&bytes).map_err(|fault| match fault {
        Some((line, reason)) => SecurityError::Secret { path: path.to_owned(), line, reason },
        None => SecurityError::Empty { path: path.to_owned(), expected: "secret" },
    })
}

fn parse(bytes: &[u8]) -> Result<Vec<SecretString>, Option<(usize, &'static str)>> {
    let text = std::str::from_utf8(bytes).map_err(|_| Some((1, "it is no text")))?;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = match line.len() {
            // What a header can hold, and no mistake such as two secrets in a line.
            _ if !line.bytes().all(|byte| byte.is_ascii_graphic()) => Some("a secret has no blanks, and ASCII only"),
            0..SHORTEST => Some("a secret has at least 32 characters, such as `openssl rand -hex 32` makes"),
            SHORTEST..=LONGEST => None,
            _ => Some("a secret has at most 512 characters"),
        };
        if let Some(reason) = fault {
            return Err(Some((index + 1, reason)));
        }
        if found.len() == MOST {
            return Err(Some((index + 1, "a file holds at most 8 secrets: take out the old ones")));
        }
        found.push(SecretString::from(line));
    }
    if found.is_empty() { Err(None) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_file_has_a_secret_a_line() {
        let one = "0123456789abcdef0123456789abcdef";
        let text = format!("# new\n{one}1\r\n\n  {one}2  \n");
        let found: Vec<String> =
            parse(text.as_bytes()).unwrap().iter().map(|secret| secret.expose_secret().to_owned()).collect();
        assert_eq!(found, [format!("{one}1"), format!("{one}2")]);
        for (text, expected) in [
            (String::new(), None),
            ("# nothing\n\n".into(), None),
            ("short".into(), Some(1)),
            (format!("{one}\nshort"), Some(2)),
            (format!("{one} {one}"), Some(1)),
            (format!("{one}ö"), Some(1)),
            ("x".repeat(LONGEST + 1), Some(1)),
            (format!("{one}\n").repeat(MOST + 1), Some(MOST + 1)),
        ] {
            let fault = parse(text.as_bytes()).unwrap_err();
            assert_eq!(fault.map(|(line, _)| line), expected, "{text}");
        }
    }

    #[test]
    fn what_others_may_read_or_a_group_may_change_is_exposed() {
        for (mode, expected) in [
            (0o600, false),
            (0o400, false),
            (0o640, false),
            (0o440, false),
            (0o644, true),
            (0o604, true),
            (0o660, true),
            (0o602, true),
            (0o601, true),
        ] {
            assert_eq!(is_exposed(0o100_000 | mode), expected, "{mode:o}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused_without_being_repeated(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
