//! The settings of a running database.

use tokio_postgres::Client;

use super::client::{QUERY_TIMEOUT, cell, one, within};
use super::{DbConfig, DbSetting};
use crate::database::error::{Error, Result};

/// The settings that differ from the built-in default, or wait for a restart.
const SETTINGS: &str = "
    SELECT name, setting, unit, source, pending_restart
      FROM pg_settings
     WHERE (setting IS DISTINCT FROM boot_val OR pending_restart) AND source NOT IN ('client', 'session')
     ORDER BY name";

/// The first error that keeps PostgreSQL from loading any setting. A value that is out of range does not, and neither does
/// one that needs a restart.
const FAULT: &str = "
    SELECT format('%s line %s: %s', sourcefile, sourceline, concat_ws(': ', name, error))
      FROM pg_file_settings
     WHERE error NOT IN ('', 'setting could not be applied')
       AND error NOT LIKE 'parameter % cannot be changed without restarting the server'
     ORDER BY seqno LIMIT 1";

/// The settings of a running database.
pub(crate) async fn settings(client: &Client) -> Result<DbConfig> {
    let attempted = "report its settings";
    let about = "SELECT current_setting('server_version'), system_identifier::text FROM pg_control_system()";
    let row = one(client, QUERY_TIMEOUT, attempted, about).await?;
    let rows = within(QUERY_TIMEOUT, attempted, client.query(SETTINGS, &[])).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let name: String = cell(row, 0)?;
        let value: Option<String> = cell(row, 1)?;
        found.push(DbSetting {
            value: masked(&name, value.as_deref().unwrap_or_default()),
            name,
            unit: cell(row, 2)?,
            source: cell(row, 3)?,
            pending_restart: cell(row, 4)?,
        });
    }
    Ok(DbConfig { version: cell(&row, 0)?, system_identifier: cell(&row, 1)?, settings: found })
}

/// Fails if an error in its files keeps PostgreSQL from loading any setting.
pub(crate) async fn check_files(client: &Client) -> Result<()> {
    let rows = within(QUERY_TIMEOUT, "check its settings", client.query(FAULT, &[])).await?;
    match rows.first() {
        Some(row) => Err(Error::Unfit(format!("it loads no settings, since one is wrong: {}", cell::<&str>(row, 0)?))),
        None => Ok(()),
    }
}

/// A setting's value without the secrets that it may hold.
fn masked(name: &str, value: &str) -> String {
    const MASK: &str = "********";
    if name == "ssl_passphrase_command" && !value.is_empty() {
        return MASK.into();
    }
    let lower = value.to_ascii_lowercase();
    let mut result = String::new();
    let mut from = 0;
    while let Some((start, length)) = ["password=", "secret=", "token=", "key=", "passwd="]
        .iter()
        .filter_map(|key| lower[from..].find(key).map(|at| (from + at, key.len())))
        .min()
    {
        let start = start + length;
        let rest = &value[start..];
        // A quoted secret may contain spaces, and escaped quotes.
        let end = match rest.chars().next() {
            Some(quote @ ('\'' | '"')) => end_of_quoted(rest, quote),
            _ => rest.find([' ', '&', '\'', '"']).unwrap_or(rest.len()),
        };
        result += &value[from..start];
        result += MASK;
        from = start + end;
    }
    result + &value[from..]
}

fn end_of_quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_masked() {
        for (name, value, expected) in [
            ("primary_conninfo", "host=a password=s3cret user=b", "host=a password=******** user=b"),
            ("primary_conninfo", "password='s3 \\' cret' user=b", "password=******** user=b"),
            ("archive_command", "AWS_SECRET=x PASSWORD=y cp", "AWS_SECRET=******** PASSWORD=******** cp"),
            ("ssl_passphrase_command", "echo geheim", "********"),
            ("ssl_passphrase_command", "", ""),
            ("password_encryption", "md5", "md5"),
        ] {
            assert_eq!(masked(name, value), expected);
        }
    }

    proptest! {
        #[test]
        fn any_value_is_masked_without_a_panic(value in "(\\PC|password=|'){0,30}") {
            let _ = masked("x", &value);
        }

        #[test]
        fn a_word_after_password_never_shows(secret in "[A-Z]{6,12}") {
            let value = format!("a password={secret} b");
            prop_assert!(!masked("x", &value).contains(&secret));
        }
    }
}
