//! The syntax of PostgreSQL's configuration files and connection strings (PostgreSQL's documentation, "Setting
//! Parameters", "Connection Strings").

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How deep files may include others: PostgreSQL's own limit.
const MAX_DEPTH: usize = 10;

/// How many files are read at most. Ten files that all include their own directory would be read 10,000,000,000 times.
const MAX_FILES: usize = 1000;

/// Reads configuration files, as far as the caller lets it.
pub(crate) struct Reader<'a> {
    /// The text of a file. None if it cannot be read.
    pub(crate) read: &'a dyn Fn(&Path) -> Option<String>,
    /// The files in a directory, in any order.
    pub(crate) list: &'a dyn Fn(&Path) -> Vec<PathBuf>,
}

impl Reader<'_> {
    /// The settings in a configuration file and in the files that it includes. If a setting is there several times, the
    /// last value counts. The file `skip` is not read.
    pub(crate) fn values(&self, path: &Path, skip: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        self.collect(path, skip, 0, &mut { MAX_FILES }, &mut found);
        found
    }

    fn collect(&self, path: &Path, skip: &Path, depth: usize, left: &mut usize, found: &mut BTreeMap<String, String>) {
        if depth > MAX_DEPTH || path == skip || *left == 0 {
            return;
        }
        *left -= 1;
        let text = (self.read)(path).unwrap_or_default();
        let base = path.parent().unwrap_or(Path::new("/"));
        for (name, value) in text.lines().filter_map(parse_line) {
            match name.as_str() {
                "include" | "include_if_exists" => self.collect(&base.join(&value), skip, depth + 1, left, found),
                "include_dir" => {
                    for path in configurations((self.list)(&base.join(&value))) {
                        self.collect(&path, skip, depth + 1, left, found);
                    }
                }
                _ => {
                    found.insert(name, value);
                }
            }
        }
    }
}

/// The configuration files among the files of a directory, in the order in which PostgreSQL reads them.
fn configurations(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !name.starts_with('.') && name.ends_with(".conf")
    });
    files.sort();
    files
}

/// The name (in lower case) and the value of a line. None for an empty line, a comment and a malformed line.
pub(crate) fn parse_line(line: &str) -> Option<(String, String)> {
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

/// The value of a quoted text whose opening quote was removed. None without a closing quote.
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

/// A value as it is written in a configuration file.
pub(crate) fn quote(value: &str) -> String {
    // A line break would end the setting.
    let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// The text without the lines for whose setting and value `unwanted` is true.
pub(crate) fn without(text: &str, unwanted: &dyn Fn(&str, &str) -> bool) -> String {
    let keep = |line: &&str| parse_line(line).is_none_or(|(name, value)| !unwanted(&name, &value));
    text.split_inclusive('\n').filter(keep).collect()
}

/// A connection string with these parameters.
pub(crate) fn conninfo(parameters: &[(&str, &str)]) -> String {
    let quoted = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    let pairs: Vec<String> = parameters.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    pairs.join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn no_files(_: &Path) -> Vec<PathBuf> {
        Vec::new()
    }

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
        let found =
            Reader { read: &read, list: &no_files }.values("/d/postgresql.conf".as_ref(), "/d/own.conf".as_ref());
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
        let found =
            Reader { read: &count, list: &no_files }.values("/d/postgresql.conf".as_ref(), "/d/own.conf".as_ref());
        assert_eq!((found.len(), found["port"].as_str(), read.get()), (1, "1", MAX_FILES));
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
            let reader = Reader { read: &read, list: &|_| vec!["/d/postgresql.conf".into()] };
            let _ = reader.values("/d/postgresql.conf".as_ref(), "/d/own.conf".as_ref());
            let left = without(&text, &|name, _| name == "port");
            prop_assert!(left.lines().filter_map(parse_line).all(|(name, _)| name != "port"));
        }

        #[test]
        fn any_line_is_read_or_passed_over(line in "\\PC{0,60}") {
            let _ = parse_line(&line);
        }
    }
}
