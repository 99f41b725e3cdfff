//! The node's settings: its configuration file, overridden by the environment and the command line.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use qluster_consensus::model::Port;
use serde::Deserialize;

use crate::guard::{WatchdogMode, WatchdogSettings};
use crate::security::{SecurityFile, SecurityOverrides, SecuritySettings};

/// The API's port if none is given.
const DEFAULT_API_PORT: Port = Port::constant(8080);
/// The database's port if none is given.
const DEFAULT_DB_PORT: Port = Port::constant(5432);
/// The name of the node's store in its directory.
pub(crate) const STORE_FILE: &str = "raft.redb";
/// The configuration file that is read if none is named.
pub const DEFAULT_FILE: &str = "/etc/qluster/config.yaml";

/// The settings of the command line and the environment. They override the file.
#[derive(Args, Clone, Debug, Default)]
pub struct Overrides {
    /// Configuration file of the node [default: /etc/qluster/config.yaml, if it exists]
    #[arg(long, global = true, env = "QLUSTER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// IP address of this host, at which the other nodes reach it
    #[arg(long, global = true, env = "QLUSTER_IP")]
    pub ip: Option<IpAddr>,
    /// Port of the REST API and of the channel between nodes [default: 8080]
    #[arg(long, global = true, env = "QLUSTER_API_PORT", value_name = "PORT")]
    pub api_port: Option<Port>,
    /// Directory of the node's own data [default: /var/lib/qluster]
    #[arg(long, global = true, env = "QLUSTER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directory of the cluster's log, which may be on a disk of its own [default: the data directory]
    #[arg(long, global = true, env = "QLUSTER_RAFT_DIR", value_name = "DIR")]
    pub raft_dir: Option<PathBuf>,
    /// Data directory of PostgreSQL; without it, the node manages no database
    #[arg(long, global = true, env = "QLUSTER_DB_DATA_DIR", value_name = "DIR")]
    pub db_data_dir: Option<PathBuf>,
    /// Port of PostgreSQL [default: 5432]
    #[arg(long, global = true, env = "QLUSTER_DB_PORT", value_name = "PORT")]
    pub db_port: Option<Port>,
    /// Directory of PostgreSQL's programs [default: those of the newest version that is installed]
    #[arg(long, global = true, env = "QLUSTER_DB_BIN_DIR", value_name = "DIR")]
    pub db_bin_dir: Option<PathBuf>,
    /// Account that PostgreSQL runs under if the daemon runs as root [default: postgres]
    #[arg(long, global = true, env = "QLUSTER_DB_OS_USER", value_name = "USER")]
    pub db_os_user: Option<String>,
    /// Whether a watchdog resets the machine if a primary cannot be stopped in time [default: automatic]
    #[arg(long, global = true, env = "QLUSTER_WATCHDOG", value_name = "MODE")]
    pub watchdog: Option<WatchdogMode>,
    /// Device of the watchdog [default: /dev/watchdog]
    #[arg(long, global = true, env = "QLUSTER_WATCHDOG_DEVICE", value_name = "FILE")]
    pub watchdog_device: Option<PathBuf>,
    /// Credentials.
    #[command(flatten)]
    pub security: SecurityOverrides,
}

/// The contents of the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct File {
    ip: Option<IpAddr>,
    api_port: Option<Port>,
    data_dir: Option<PathBuf>,
    raft_dir: Option<PathBuf>,
    database: Option<DatabaseFile>,
    watchdog: WatchdogFile,
    security: SecurityFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct DatabaseFile {
    data_dir: Option<PathBuf>,
    port: Option<Port>,
    bin_dir: Option<PathBuf>,
    os_user: Option<String>,
    programs: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct WatchdogFile {
    mode: Option<WatchdogMode>,
    device: Option<PathBuf>,
}

/// The settings of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Address of this host.
    pub ip: IpAddr,
    /// Port of the REST API and of the channel between nodes.
    pub api_port: Port,
    /// Directory of the node's own data.
    pub data_dir: PathBuf,
    /// Directory of the cluster's log.
    pub raft_dir: PathBuf,
    /// Its database; None if it manages none.
    pub database: Option<DatabaseSettings>,
    /// The watchdog, which resets the machine if a primary cannot be stopped.
    pub watchdog: WatchdogSettings,
    /// The files with its credentials.
    pub security: SecuritySettings,
}

/// The settings of a node's database.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseSettings {
    /// Data directory of PostgreSQL.
    pub data_dir: PathBuf,
    /// Its port.
    pub port: Port,
    /// Directory of its programs; None for those of the newest version that is installed.
    pub bin_dir: Option<PathBuf>,
    /// Account that it runs under if the daemon runs as root; None for `postgres`.
    pub os_user: Option<String>,
    /// Programs that a fork has renamed, by PostgreSQL's name for them.
    pub programs: BTreeMap<String, String>,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML, or has an unknown or wrong setting.
    #[error("cannot understand the configuration file {}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where, and what was expected.
        #[source]
        source: serde_norway::Error,
    },
    /// A setting is missing or makes no sense; a sentence.
    #[error("{0}")]
    Rule(String),
}

impl Settings {
    /// The settings from the file, overridden by `overrides`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a setting is missing or wrong.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let file = match &overrides.config {
            Some(path) => read(path)?,
            None if default.exists() => read(default)?,
            None => File::default(),
        };
        Self::combine(file, overrides)
    }

    fn combine(file: File, overrides: &Overrides) -> Result<Self, ConfigError> {
        let rule = |text: &str| ConfigError::Rule(text.into());
        let ip = overrides.ip.or(file.ip).ok_or_else(|| {
            rule("the address of this host is not known: give --ip, or `ip` in the configuration file")
        })?;
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(ConfigError::Rule(format!("ip is {ip}, expected the address of this one host, not of many")));
        }
        let data_dir =
            overrides.data_dir.clone().or(file.data_dir).unwrap_or_else(|| PathBuf::from("/var/lib/qluster"));
        let section = file.database;
        let in_file = section.is_some();
        let section = section.unwrap_or_default();
        let database = match overrides.db_data_dir.clone().or(section.data_dir) {
            Some(directory) => Some(DatabaseSettings {
                data_dir: absolute(directory)?,
                port: overrides.db_port.or(section.port).unwrap_or(DEFAULT_DB_PORT),
                bin_dir: overrides.db_bin_dir.clone().or(section.bin_dir),
                os_user: overrides.db_os_user.clone().or(section.os_user),
                programs: section.programs,
            }),
            None if in_file => {
                return Err(rule("the section `database` of the configuration file has no `data-dir`"));
            }
            None if overrides.db_port.is_some() || overrides.db_bin_dir.is_some() || overrides.db_os_user.is_some() => {
                return Err(rule("the database's data directory is not known: give --db-data-dir as well"));
            }
            None => None,
        };
        let data_dir = absolute(data_dir)?;
        let raft_dir = match overrides.raft_dir.clone().or(file.raft_dir) {
            Some(directory) => absolute(directory)?,
            None => data_dir.clone(),
        };
        let api_port = overrides.api_port.or(file.api_port).unwrap_or(DEFAULT_API_PORT);
        if database.as_ref().is_some_and(|database| database.port == api_port) {
            return Err(ConfigError::Rule(format!("api-port and the database's port are both {api_port}")));
        }
        let usual = WatchdogSettings::default();
        let device = overrides.watchdog_device.clone().or(file.watchdog.device).unwrap_or(usual.device);
        let watchdog = WatchdogSettings {
            mode: overrides.watchdog.or(file.watchdog.mode).unwrap_or(usual.mode),
            device: absolute(device)?,
        };
        let security = SecuritySettings::combine(file.security, &overrides.security).map_err(ConfigError::Rule)?;
        if let Some(reason) = security.forbid(ip, database.is_some()) {
            return Err(ConfigError::Rule(reason));
        }
        Ok(Self { ip, api_port, data_dir, raft_dir, database, watchdog, security })
    }

    /// Address of the REST API.
    pub fn api_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.api_port.get())
    }

    /// Path of the node's store.
    pub fn store(&self) -> PathBuf {
        self.raft_dir.join(STORE_FILE)
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
}

/// A file with nothing but comments has no settings.
fn parse(text: &str) -> Result<File, serde_norway::Error> {
    Ok(serde_norway::from_str::<Option<File>>(text)?.unwrap_or_default())
}

/// PostgreSQL runs in another working directory, so paths must not depend on ours.
fn absolute(path: PathBuf) -> Result<PathBuf, ConfigError> {
    std::path::absolute(&path).map_err(|source| ConfigError::Read { path, source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(yaml: &str, overrides: &Overrides) -> Result<Settings, String> {
        parse(yaml)
            .map_err(|error| error.to_string())
            .and_then(|file| Settings::combine(file, overrides).map_err(|error| error.to_string()))
    }

    /// The file in the package is all comments, with the defaults if there are any.
    #[test]
    fn the_packaged_file_says_nothing_and_would_be_understood_without_its_comment_signs() {
        let packaged = include_str!("../../../packaging/config.yaml");
        let flags = Overrides { ip: Some([127, 0, 0, 1].into()), ..Overrides::default() };
        let nothing = settings("", &flags).unwrap();
        assert_eq!(settings(packaged, &flags).unwrap(), nothing);
        let lines = packaged.lines().map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') || setting.starts_with("  ") => setting,
            _ => line,
        });
        let all = settings(&lines.collect::<Vec<_>>().join("\n"), &Overrides::default()).unwrap();
        assert!(all.database.is_some() && all.security.peer_secret_file.is_some() && all.security.tls.is_some());
        assert_eq!(Settings { database: None, security: SecuritySettings::default(), ..all }, nothing);
    }

    #[test]
    fn the_command_line_overrides_the_file() {
        let yaml = "
            ip: 127.0.0.1
            api-port: 8081
            data-dir: /srv/qluster
            database:
              data-dir: /srv/postgresql
              port: 5433
              os-user: qhb
              programs: {pg_ctl: qhb_ctl}
            watchdog: {mode: required}
        ";
        let file = settings(yaml, &Overrides::default()).unwrap();
        assert_eq!(file.api_address(), ([127, 0, 0, 1], 8081).into());
        assert_eq!(file.store(), Path::new("/srv/qluster/raft.redb"));
        let database = file.database.clone().unwrap();
        assert_eq!((database.port.get(), database.os_user.as_deref()), (5433, Some("qhb")));

        let required = WatchdogSettings { mode: WatchdogMode::Required, device: "/dev/watchdog".into() };
        assert_eq!(file.watchdog, required);

        let overrides = Overrides {
            watchdog: Some(WatchdogMode::Off),
            watchdog_device: Some("/dev/watchdog1".into()),
            api_port: Port::new(9090),
            db_port: Port::new(6000),
            raft_dir: Some("/srv/fast".into()),
            ..Overrides::default()
        };
        let both = settings(yaml, &overrides).unwrap();
        assert_eq!((both.api_port.get(), both.database.as_ref().unwrap().port.get()), (9090, 6000));
        assert_eq!(both.store(), Path::new("/srv/fast/raft.redb"));
        assert_eq!(both.watchdog, WatchdogSettings { mode: WatchdogMode::Off, device: "/dev/watchdog1".into() });
    }

    #[test]
    fn no_file_is_needed_and_without_a_data_directory_there_is_no_database() {
        let overrides = Overrides { ip: Some([127, 0, 0, 1].into()), ..Overrides::default() };
        let settings = settings("", &overrides).unwrap();
        assert_eq!((settings.api_port.get(), settings.database), (8080, None));
        assert_eq!(settings.watchdog, WatchdogSettings::default());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let overrides = Overrides { db_port: Port::new(5432), ..Overrides::default() };
        for (yaml, overrides, expected) in [
            ("api-port: 8080", &Overrides::default(), "give --ip"),
            ("ip: 0.0.0.0", &Overrides::default(), "not of many"),
            ("ip: 10.0.0.1", &Overrides::default(), "--allow-unauthenticated-network"),
            ("ip: 127.0.0.1\nsecurity: {token: x}", &Overrides::default(), "unknown field `token`"),
            ("ip: localhost", &Overrides::default(), "invalid IP address"),
            ("ip: 127.0.0.1\napi-port: 70000", &Overrides::default(), "a port from 1 to 65535"),
            ("ip: 127.0.0.1\napi-prot: 8080", &Overrides::default(), "unknown field `api-prot`"),
            ("ip: 127.0.0.1\ndatabase: {port: 5432}", &Overrides::default(), "has no `data-dir`"),
            ("ip: 127.0.0.1", &overrides, "give --db-data-dir"),
            ("ip: 127.0.0.1\nwatchdog: {mode: always}", &Overrides::default(), "unknown variant `always`"),
            ("ip: 127.0.0.1\ndatabase: {data-dir: /d, port: 8080}", &Overrides::default(), "both 8080"),
        ] {
            let error = settings(yaml, overrides).unwrap_err();
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_file_is_understood_or_refused(text in ".{0,200}|[\\[{\\-? ]{0,2000}|(&a |\\*a |- |a: |\\[|!!x ){0,300}") {
            let _ = settings(&text, &Overrides::default());
        }

        /// One in which a few characters are wrong, or the end is missing.
        #[test]
        fn a_changed_file_is_understood_or_refused(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = "ip: 127.0.0.1\napi-port: 8081\ndatabase: {data-dir: /d, port: 5433, programs: {a: b}}\n\
                         watchdog:\n  mode: required\n  device: /dev/watchdog\n";
            let mut text: Vec<char> = whole.chars().collect();
            changes.into_iter().for_each(|(place, change)| *place.get_mut(&mut text) = change);
            let text: String = text[..=cut.index(text.len())].iter().collect();
            if let Ok(settings) = settings(&text, &Overrides::default()) {
                prop_assert!(settings.ip.is_loopback() && settings.data_dir.is_absolute());
            }
        }
    }
}
