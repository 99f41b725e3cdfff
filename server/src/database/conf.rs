//! The syntax of PostgreSQL's configuration files and connection strings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How deep files may include others; PostgreSQL's own limit.
const DEPTH: usize = 10;
/// So many files are read at most: ten of a directory that include it would be read 10,000,000,000 times.
const FILES: usize = 1000;

/// The settings that a configuration file and those that it includes give, the last one of each. `skip` is not read
/// where it is included; `read` answers with nothing for what cannot be read.
pub(super) fn values(path: &Path, skip: &Path, read: &dyn Fn(&Path) -> Option<String>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(path, skip, read, 0, &mut { FILES }, &mut found);
    found
}

fn collect(
    path: &Path,
    skip: &Path,
    read: &dyn Fn(&Path) -> Option<String>,
    depth: usize,
    left: &mut usize,
    found: &mut BTreeMap<String, String>,
) {
    if depth > DEPTH || path == skip || *left == 0 {
        return;
    }
    *left -= 1;
    let text = read(path).unwrap_or_default();
    let base = path.parent().unwrap_or(Path::new("/"));
    for (name, value) in text.lines().filter_map(parse_line) {
        match name.as_str() {
            "include" | "include_if_exists" => collect(&base.join(&value), skip, read, depth + 1, left, found),
            "include_dir" => {
                for path in files_of(&base.join(&value)) {
                    collect(&path, skip, read, depth + 1, left, found);
                }
            }
            _ => {
                found.insert(name, value);
            }
        }
    }
}

/// The configuration files of a directory, in the order in which PostgreSQL reads them.
fn files_of(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_read = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !name.starts_with('.') && name.ends_with(".conf")
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_read).collect();
    paths.sort();
    paths
}

/// Name (in lower case) and value of a line, unless it is empty, a comment or odd.
pub(super) fn parse_line(line: &str) -> Option<(String, String)> {
    let line = line.trim_start();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$')) && c.is_ascii());
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    if name.is_empty() {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => unquote(quoted)?,
        None => rest.split(|c: char| c.is_whitespace() || c == '#').next().unwrap_or_default().into(),
    };
    Some((name.to_ascii_lowercase(), value))
}

/// The value whose opening quote was taken off.
fn unquote(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.as_str().starts_with('\'') => {
                chars.next();
                value.push('\'');
            }
            '\'' => return Some(value),
            '\\' => value.push(chars.next()?),
            c => value.push(c),
        }
    }
    None
}

/// A value as it is written into a configuration file.
pub(super) fn quote(value: &str) -> String {
    // A line break would end the setting.
    let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// The text without the lines whose setting and value `unwanted` names.
pub(super) fn without(text: &str, unwanted: &dyn Fn(&str, &str) -> bool) -> String {
    let keep = |line: &&str| parse_line(line).is_none_or(|(name, value)| !unwanted(&name, &value));
    text.split_inclusive('\n').filter(keep).collect()
}

/// A connection string of these parameters.
pub(super) fn conninfo(parameters: &[(&str, &str)]) -> String {
    let quoted = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    let pairs: Vec<String> = parameters.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    pairs.join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_read_as_postgresql_reads_them() {
        for (line, expected) in [
            ("port = 5432", Some(("port", "5432"))),
            ("port 5432 # comment", Some(("port", "5432"))),
            ("  Port=5432#x", Some(("port", "5432"))),
            ("archive_command = 'cp ''%p'' /x # no comment'", Some(("archive_command", "cp '%p' /x # no comment"))),
            ("a = 'it\\'s'", Some(("a", "it's"))),
            ("my.setting = on", Some(("my.setting", "on"))),
            ("include 'other.conf'", Some(("include", "other.conf"))),
            ("# port = 1", None),
            ("", None),
            ("= 1", None),
            ("a = 'open", None),
        ] {
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(parse_line(line), expected, "{line}");
        }
    }

    #[test]
    fn the_last_value_counts_included_files_too_and_a_circle_ends() {
        let files = BTreeMap::from([
            ("/d/postgresql.conf", "port = 1\nwal_level = logical\ninclude 'x/more.conf'\ninclude 'own.conf'\n"),
            ("/d/x/more.conf", "port = 2\ninclude_if_exists = '/d/postgresql.conf'\nport = 3\n"),
            ("/d/own.conf", "port = 9\n"),
        ]);
        let read = |path: &Path| files.get(path.to_str()?).map(|text| (*text).to_owned());
        let found = values(Path::new("/d/postgresql.conf"), Path::new("/d/own.conf"), &read);
        let expected = [("port", "3"), ("wal_level", "logical")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn files_that_all_include_each_other_come_to_an_end() {
        let text = "port = 1\n".to_owned() + &"include 'a.conf'\n".repeat(30);
        let read = std::cell::Cell::new(0);
        let count = |_: &Path| {
            read.set(read.get() + 1);
            Some(text.clone())
        };
        let found = values(Path::new("/d/postgresql.conf"), Path::new("/d/own.conf"), &count);
        assert_eq!((found.len(), found["port"].as_str(), read.get()), (1, "1", FILES));
    }

    #[test]
    fn only_unwanted_settings_are_taken_out() {
        let text = "# Do not edit\nport = '1'\nPRIMARY_CONNINFO = 'x'\nwork_mem = '4MB'";
        let unwanted = |name: &str, _: &str| matches!(name, "port" | "primary_conninfo");
        assert_eq!(without(text, &unwanted), "# Do not edit\nwork_mem = '4MB'");
    }

    #[test]
    fn a_connection_string_quotes_its_values() {
        let text = conninfo(&[("host", "::1"), ("passfile", "/a b/it's\\x")]);
        assert_eq!(text, "host='::1' passfile='/a b/it\\'s\\\\x'");
    }

    proptest! {
        #[test]
        fn a_quoted_value_is_read_as_it_was(value in "[^\\p{Cc}]{0,40}") {
            let line = format!("name = {} # comment", quote(&value));
            prop_assert_eq!(parse_line(&line), Some(("name".to_owned(), value)));
        }

        /// As a program of PostgreSQL, or a client, reads it.
        #[test]
        fn a_connection_string_is_read_as_it_was(value in "[^\\x00]{0,40}", other in "\\PC{0,9}['\\\\ =]{0,9}") {
            let text = conninfo(&[("user", &other), ("application_name", &value), ("host", "h")]);
            let read: tokio_postgres::Config = text.parse().unwrap();
            prop_assert_eq!((read.get_application_name(), read.get_user()), (Some(&*value), Some(&*other)));
        }

        #[test]
        fn any_file_is_read_and_what_is_taken_out_is_out(
            lines in prop::collection::vec("(port|include|include_dir|a\\.b)? ?=? ?('|\\\\|\\PC){0,20}\r?", 0..8),
        ) {
            let text = lines.join("\n");
            let read = |path: &Path| (path == Path::new("/d/postgresql.conf")).then(|| text.clone());
            let _ = values(Path::new("/d/postgresql.conf"), Path::new("/d/own.conf"), &read);
            let left = without(&text, &|name, _| name == "port");
            prop_assert!(left.lines().filter_map(parse_line).all(|(name, _)| name != "port"));
        }

        #[test]
        fn any_line_is_read_or_passed_over(line in "\\PC{0,60}") {
            let _ = parse_line(&line);
        }
    }
}
