//! The text of `qluster.conf`: the settings that are qluster's.
//!
//! The file also says what the database was told last (its *directions*). So a restarted daemon knows it, and the settings
//! and the directions change in one rename.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use qluster_consensus::model::{NodeId, Port};
use qluster_consensus::protocol::database::{Primary, standby_name};

use crate::formats::directions::Directions;
use crate::formats::{ROLE, conf};

/// What the settings contain about the node.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) node: NodeId,
    pub(crate) ip: IpAddr,
    pub(crate) port: Port,
    pub(crate) socket_dir: PathBuf,
    pub(crate) hba_file: PathBuf,
    pub(crate) ident_file: PathBuf,
    /// The file with the password of the replication role, if it needs one.
    pub(crate) passfile: Option<PathBuf>,
}

/// Whether a setting is qluster's: no file that is read later may set it.
fn is_owned(name: &str) -> bool {
    name.starts_with("recovery_target")
        || matches!(
            name,
            "primary_conninfo"
                | "primary_slot_name"
                | "synchronous_standby_names"
                | "restore_command"
                | "promote_trigger_file"
                | "recovery_min_apply_delay"
                | "port"
                | "listen_addresses"
                | "unix_socket_directories"
                | "hba_file"
                | "ident_file"
                | "data_directory"
                | "hot_standby"
                | "wal_level"
                | "wal_log_hints"
                | "full_page_writes"
                | "wal_retrieve_retry_interval"
                | "max_standby_streaming_delay"
                | "max_standby_archive_delay"
                | "max_wal_senders"
                | "max_replication_slots"
                | "max_connections"
                | "max_worker_processes"
                | "max_prepared_transactions"
                | "max_locks_per_transaction"
                | "restart_after_crash"
                | "qluster.stamp"
        )
}

/// Whether `postgresql.auto.conf`, which is read last, must not set `name` to `value`. `ours` is the value that qluster
/// renders.
pub(super) fn conflicts(name: &str, value: &str, ours: Option<&str>) -> bool {
    // A high enough value of the user's was taken over when ours was rendered.
    let takes_over = name.starts_with("max_") || name == "wal_level";
    is_owned(name) && !(takes_over && ours == Some(value))
}

/// What else the text of `qluster.conf` depends on.
pub(crate) struct Rendering<'a> {
    /// The user's settings in other files.
    pub(super) users: &'a BTreeMap<String, String>,
    /// The least values with which PostgreSQL starts as a standby of its present primary.
    pub(super) floors: &'a [(&'static str, u64)],
    /// Identifies this text: no other has the same stamp.
    pub(super) stamp: &'a str,
    /// Size of the filesystem with the WAL, in bytes.
    pub(super) disk: u64,
}

impl Own {
    /// The text of `qluster.conf`.
    pub(super) fn render(&self, directions: &Directions, rendering: &Rendering<'_>) -> String {
        let &Rendering { users, floors, stamp, disk } = rendering;
        let mut lines = vec![
            "# Written by qluster, and overwritten. Your own settings belong into postgresql.conf.".to_owned(),
            directions.line(),
        ];
        let mut set = |name: &str, value: &str| lines.push(format!("{name} = {}", conf::quote(value)));
        set("listen_addresses", &listen_addresses(self.ip));
        set("port", &self.port.to_string());
        set("unix_socket_directories", &self.socket_dirs(users));
        set("hba_file", &self.hba_file.to_string_lossy());
        set("ident_file", &self.ident_file.to_string_lossy());
        // After a crash the daemon starts it, as a standby.
        set("restart_after_crash", "off");
        set("hot_standby", "on");
        let logical = users.get("wal_level").is_some_and(|level| level == "logical");
        set("wal_level", if logical { "logical" } else { "replica" });
        // pg_rewind needs both.
        set("wal_log_hints", "on");
        set("full_page_writes", "on");
        for (name, value) in sizes(users, floors) {
            set(name, &value);
        }
        if !users.contains_key("wal_keep_size") {
            // Slots keep the WAL that standbys lack. This is for a standby that has no slot yet.
            set("wal_keep_size", "128MB");
        }
        if !users.contains_key("max_slot_wal_keep_size") {
            set("max_slot_wal_keep_size", &format!("{}MB", slot_limit(disk)));
        }
        set("restore_command", "");
        // Standbys stream without a slot. The daemons move the slots, see `operations::slots`.
        set("primary_slot_name", "");
        for target in ["", "_lsn", "_name", "_time", "_xid"] {
            set(&format!("recovery_target{target}"), "");
        }
        set("recovery_target_timeline", "latest");
        for (name, value) in
            [("tcp_keepalives_idle", "5"), ("tcp_keepalives_interval", "1"), ("tcp_keepalives_count", "3")]
        {
            if !users.contains_key(name) {
                set(name, value);
            }
        }
        set("wal_sender_timeout", "5s");
        set("wal_receiver_timeout", "5s");
        set("primary_conninfo", &directions.primary().map_or(String::new(), |primary| self.conninfo(primary)));
        set("synchronous_standby_names", directions.sync_names());
        // How often a standby tries to reach a primary that is away. Each try is logged.
        set("wal_retrieve_retry_interval", "1s");
        if matches!(directions, Directions::Fenced) {
            // Replay waits for no query.
            set("max_standby_streaming_delay", "0");
            set("max_standby_archive_delay", "0");
        }
        set("recovery_min_apply_delay", "0");
        // A session with this stamp was started with these settings, and not with earlier ones.
        set("qluster.stamp", stamp);
        lines.push(String::new());
        lines.join("\n")
    }

    /// The connection string by which this node streams from a primary.
    pub(crate) fn conninfo(&self, primary: &Primary) -> String {
        let name = standby_name(self.node, primary.term);
        self.connect(primary, &[("application_name", &name)])
    }

    /// The connection string by which programs of this node connect to a primary, with `more` parameters.
    pub(crate) fn connect(&self, primary: &Primary, more: &[(&str, &str)]) -> String {
        let (host, port) = (primary.ip.to_string(), primary.port.to_string());
        let passfile = self.passfile.as_ref().map(|path| path.to_string_lossy().into_owned());
        let mut parameters = vec![("host", host.as_str()), ("port", &port), ("user", ROLE)];
        parameters.extend(passfile.as_ref().map(|path| ("passfile", path.as_str())));
        parameters.extend([
            ("connect_timeout", "3"),
            ("keepalives_idle", "5"),
            ("keepalives_interval", "1"),
            ("keepalives_count", "3"),
        ]);
        parameters.extend(more);
        conf::conninfo(&parameters)
    }

    /// Our socket directory, and the user's.
    fn socket_dirs(&self, users: &BTreeMap<String, String>) -> String {
        let own = self.socket_dir.to_string_lossy().into_owned();
        let mut dirs = vec![own];
        let theirs = users.get("unix_socket_directories").map_or("", String::as_str);
        for dir in theirs.split(',').map(str::trim).filter(|dir| Path::new(dir).is_dir()) {
            if !dirs.iter().any(|known| known == dir) {
                dirs.push(dir.into());
            }
        }
        let quoted: Vec<String> = dirs.iter().map(|dir| format!("\"{}\"", dir.replace('"', "\"\""))).collect();
        quoted.join(", ")
    }
}

/// The node's address, and the loopback address of the same family.
fn listen_addresses(ip: IpAddr) -> String {
    let loopback = if ip.is_ipv4() { "127.0.0.1" } else { "::1" };
    if ip.is_unspecified() || ip.to_string() == loopback { ip.to_string() } else { format!("{ip}, {loopback}") }
}

/// Settings that are numbers. Each is at least what qluster needs, what the primary has, and what the user wants.
fn sizes(users: &BTreeMap<String, String>, floors: &[(&'static str, u64)]) -> Vec<(&'static str, String)> {
    // PostgreSQL's defaults, and what qluster needs.
    let known = [
        ("max_connections", 100, 0),
        ("max_worker_processes", 8, 0),
        ("max_wal_senders", 10, 16),
        // One for each other node, besides the user's. An unused slot takes next to no memory.
        ("max_replication_slots", 10, 64),
        ("max_prepared_transactions", 0, 0),
        ("max_locks_per_transaction", 64, 0),
    ];
    let mut found = Vec::new();
    for (name, default, needed) in known {
        let theirs = users.get(name).and_then(|value| value.parse().ok());
        let floor = floors.iter().find(|(setting, _)| *setting == name).map_or(0, |(_, floor)| *floor);
        let value = theirs.unwrap_or(default).max(needed).max(floor);
        found.push((name, value.to_string()));
    }
    found
}

/// How much WAL is kept for standbys that are away, in MB, on a filesystem of `disk` bytes. It is enough for hours of an
/// ordinary load, which is cheaper than a clone. It is a quarter of the disk at most, so that the data can grow: checkpoints
/// (`max_wal_size`) and the staging of a clone need space on the same disk.
fn slot_limit(disk: u64) -> u64 {
    ((disk / 4) >> 20).clamp(64, 10 << 10)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use qluster_consensus::model::Term;
    use qluster_consensus::protocol::database::SyncRule;

    use super::*;
    use crate::formats::sync_names::{NOBODY, sync_names};

    fn own() -> Own {
        Own {
            node: NodeId(1),
            ip: [10, 0, 0, 1].into(),
            port: Port::new(5433).unwrap(),
            socket_dir: "/run/q l".into(),
            hba_file: "/d/qluster_hba.conf".into(),
            ident_file: "/d/qluster_ident.conf".into(),
            passfile: Some("/run/q l/pgpass".into()),
        }
    }

    fn primary() -> Primary {
        let ip = [10, 0, 0, 2].into();
        Primary { node: NodeId(2), term: Term(7), ip, port: Port::new(5432).unwrap(), timeline: 3 }
    }

    fn rendered(
        directions: &Directions,
        users: &[(&str, &str)],
        floors: &[(&'static str, u64)],
    ) -> BTreeMap<String, String> {
        let users = users.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        let rendering = Rendering { users: &users, floors, stamp: "x", disk: 1 << 30 };
        own().render(directions, &rendering).lines().filter_map(conf::parse_line).collect()
    }

    #[test]
    fn directions_are_read_back_from_the_file() {
        let rule = SyncRule { term: Term(7), standbys: BTreeSet::from([NodeId(2), NodeId(3)]), count: 1 };
        for directions in [
            Directions::Fenced,
            Directions::Follows(primary()),
            Directions::Leads(sync_names(&rule)),
            Directions::Leads(String::new()),
        ] {
            let rendering = Rendering { users: &BTreeMap::new(), floors: &[], stamp: "x", disk: 0 };
            let text = own().render(&directions, &rendering);
            assert_eq!(Directions::parse(&text), Some(directions));
        }
    }

    proptest! {
        /// A settings file that was changed by hand, or written in part.
        #[test]
        fn changed_directions_are_read_or_not(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 0..6),
            cut in any::<prop::sample::Index>(),
            odd in "(# directions: )?(follows|leads|fenced|)( -?[0-9.:a-f]{0,20}){0,6}\\PC{0,9}",
        ) {
            let rendering = Rendering { users: &BTreeMap::new(), floors: &[], stamp: "x", disk: 0 };
            let mut text: Vec<char> = own().render(&Directions::Follows(primary()), &rendering).chars().collect();
            changes.into_iter().for_each(|(place, change)| *place.get_mut(&mut text) = change);
            let text: String = text[..=cut.index(text.len())].iter().collect();
            let _ = Directions::parse(&text);
            let _ = Directions::parse(&odd);
        }
    }

    #[test]
    fn only_a_follower_has_a_primary_and_it_names_itself_by_node_and_term() {
        let followed = &rendered(&Directions::Follows(primary()), &[], &[])["primary_conninfo"];
        assert!(followed.contains("host='10.0.0.2' port='5432' user='qluster'"), "{followed}");
        assert!(followed.contains("application_name='qluster_1_7'"), "{followed}");
        assert!(followed.contains("passfile='/run/q l/pgpass'"), "{followed}");
        assert_eq!(rendered(&Directions::Fenced, &[], &[])["primary_conninfo"], "");
        assert_eq!(rendered(&Directions::Leads(String::new()), &[], &[])["primary_conninfo"], "");
    }

    #[test]
    fn a_standby_never_has_an_empty_sync_rule() {
        assert_eq!(rendered(&Directions::Fenced, &[], &[])["synchronous_standby_names"], NOBODY);
        assert_eq!(rendered(&Directions::Follows(primary()), &[], &[])["synchronous_standby_names"], NOBODY);
        assert_eq!(rendered(&Directions::Leads(String::new()), &[], &[])["synchronous_standby_names"], "");
    }

    #[test]
    fn what_the_user_and_the_primary_have_is_not_lowered() {
        let settings = rendered(
            &Directions::Fenced,
            &[
                ("wal_level", "logical"),
                ("max_wal_senders", "4"),
                ("max_replication_slots", "500"),
                ("wal_keep_size", "9GB"),
            ],
            &[("max_connections", 300), ("max_worker_processes", 4)],
        );
        assert_eq!(settings["wal_level"], "logical");
        assert_eq!(settings["max_wal_senders"], "16");
        assert_eq!(settings["max_replication_slots"], "500");
        assert_eq!(settings["max_slot_wal_keep_size"], "256MB");
        assert_eq!(settings["max_connections"], "300");
        assert_eq!(settings["max_worker_processes"], "8");
        assert!(!settings.contains_key("wal_keep_size"));
    }

    #[test]
    fn wal_for_standbys_takes_a_part_of_the_disk_at_most() {
        for (disk, expected) in [(0, 64), (100 << 20, 64), (8 << 30, 2048), (40 << 30, 10240), (u64::MAX, 10240)] {
            assert_eq!(slot_limit(disk), expected, "{disk}");
        }
    }

    #[test]
    fn what_alter_system_wrote_gives_way_unless_it_was_taken_over() {
        for (name, value, ours, expected) in [
            ("primary_conninfo", "host=x", Some(""), true),
            ("recovery_target_inclusive", "off", None, true),
            ("max_connections", "300", Some("300"), false),
            ("max_wal_senders", "4", Some("16"), true),
            ("work_mem", "4MB", None, false),
        ] {
            assert_eq!(conflicts(name, value, ours), expected, "{name}");
        }
    }

    #[test]
    fn it_listens_on_its_address_and_on_loopback_once() {
        for (ip, expected) in [
            ("10.0.0.1", "10.0.0.1, 127.0.0.1"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.2", "127.0.0.2, 127.0.0.1"),
            ("::1", "::1"),
            ("fd00::1", "fd00::1, ::1"),
            ("0.0.0.0", "0.0.0.0"),
        ] {
            assert_eq!(listen_addresses(ip.parse().unwrap()), expected);
        }
    }
}
