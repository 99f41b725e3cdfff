//! Files with secrets.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use secrecy::SecretString;

use super::error::SecurityError;

/// The least length of a secret, in characters: `openssl rand -hex 32` makes 64.
const SECRET_MIN_CHARS: usize = 32;
/// The greatest length of a secret, in characters.
const SECRET_MAX_CHARS: usize = 512;
/// How many secrets a file may hold: old ones should go.
const SECRETS_PER_FILE: usize = 8;
/// How much of a file is read.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// What shows that a file has changed.
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
    file.take(FILE_LIMIT_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The secrets of a file, one in each line. The first is the one to use; the others are accepted as well. Empty lines and
/// lines that begin with `#` do not count.
pub(super) fn secrets(path: &Path) -> Result<Vec<SecretString>, SecurityError> {
    let bytes = private(path)?;
    parse(&bytes).map_err(|fault| match fault {
        Some((line, reason)) => SecurityError::Secret { path: path.to_owned(), line, reason },
        None => SecurityError::Empty { path: path.to_owned(), expected: "secret" },
    })
}

fn parse(bytes: &[u8]) -> Result<Vec<SecretString>, Option<(usize, &'static str)>> {
    let text = std::str::from_utf8(bytes).map_err(|_| Some((1, "it is not text")))?;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = match line.len() {
            // Only what a header can hold. This also finds mistakes such as two secrets in a line.
            _ if !line.bytes().all(|byte| byte.is_ascii_graphic()) => Some("a secret has no blanks, and ASCII only"),
            0..SECRET_MIN_CHARS => Some("a secret has at least 32 characters, such as `openssl rand -hex 32` makes"),
            SECRET_MIN_CHARS..=SECRET_MAX_CHARS => None,
            _ => Some("a secret has at most 512 characters"),
        };
        if let Some(reason) = fault {
            return Err(Some((index + 1, reason)));
        }
        if found.len() == SECRETS_PER_FILE {
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
            ("x".repeat(SECRET_MAX_CHARS + 1), Some(1)),
            (format!("{one}\n").repeat(SECRETS_PER_FILE + 1), Some(SECRETS_PER_FILE + 1)),
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
