//! The text of the files that say who may connect (PostgreSQL's documentation, "The pg_hba.conf File", "User Name Maps"):
//! qluster's own lines first, then the user's.

use super::ROLE;

/// The first line of the files that qluster writes.
const HEAD: &str = "# Written by qluster, and overwritten. Your own lines belong into";

/// Marks the closed form of the file.
const SHUT: &str = "# Clients are shut out until the cluster lets them in.\n";

/// The line before the user's part.
const USERS: &str = "# From pg_hba.conf:\n";

/// The user's part of an open `hba_file`. None for the closed form.
pub(crate) fn users_part(hba: &str) -> Option<&str> {
    hba.split_once(USERS).map(|(_, users)| users)
}

/// Whether clients may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// As the user's `pg_hba.conf` says.
    Open,
    /// Only the daemon and standbys.
    Closed,
}

impl Access {
    /// Reads the form back from the text of an `hba_file`.
    pub(crate) fn parse(hba: &str) -> Self {
        // The rest is the user's, who may have copied qluster's lines.
        let own = hba.split_once(USERS).map_or(hba, |(own, _)| own);
        if own.contains(SHUT) { Self::Closed } else { Self::Open }
    }
}

/// The text of qluster's `hba_file`: lines for the daemon (by the unix socket) and for standbys, then the user's
/// `pg_hba.conf`, or in the closed form nobody else.
///
/// Without a password, standbys are let in from loopback only. In the closed form, the account of PostgreSQL is a client
/// like any other, unless it is the daemon's account.
pub(crate) fn hba(superusers: &[&str], with_password: bool, access: Access, users: &str) -> String {
    let mut text = format!("{HEAD} pg_hba.conf.\n");
    let map = match access {
        Access::Open => "qluster",
        Access::Closed => "qluster_agent",
    };
    if access == Access::Closed {
        text += SHUT;
    }
    for superuser in superusers {
        text += &format!("local postgres {} peer map={map}\n", name(superuser));
    }
    let (addresses, method): (&[&str], _) = match with_password {
        true => (&["0.0.0.0/0", "::/0"], "scram-sha-256"),
        false => (&["127.0.0.0/8", "::1/128"], "trust"),
    };
    for address in addresses {
        for database in ["replication", "postgres"] {
            text += &format!("host {database} {ROLE} {address} {method}\n");
        }
    }
    // The daemon looks into databases as this role, which has few rights (`statements`).
    text += &format!("local all {ROLE} peer map=qluster_agent\n");
    // Nobody else may connect as this role, whatever the user's lines say.
    for database in ["replication", "all"] {
        text += &format!("local {database} {ROLE} reject\nhost {database} {ROLE} all reject\n");
    }
    match access {
        Access::Open => text + USERS + users,
        Access::Closed => {
            for database in ["all", "replication"] {
                text += &format!("local {database} all reject\nhost {database} all all reject\n");
            }
            text
        }
    }
}

/// The text of qluster's `ident_file`: which operating system accounts may be which superuser, then the user's lines.
/// `daemon` is the only account that is let in by the closed form of the `hba_file`.
pub(crate) fn ident(daemon: &str, accounts: &[&str], superusers: &[&str], users: &str) -> String {
    let mut text = format!("{HEAD} pg_ident.conf.\nqluster_agent {} {ROLE}\n", name(daemon));
    for superuser in superusers {
        text += &format!("qluster_agent {} {}\n", name(daemon), name(superuser));
    }
    for account in accounts {
        for superuser in superusers {
            text += &format!("qluster {} {}\n", name(account), name(superuser));
        }
    }
    text + "# From pg_ident.conf:\n" + users
}

/// A name in quotes, so that it is not read as a keyword.
fn name(name: &str) -> String {
    format!("\"{}\"", name.replace(['"', '\n'], ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_the_users_part_is_the_form_and_the_part_are_read_back(
            users in prop::collection::vec(prop_oneof![Just(SHUT.to_owned()), Just(USERS.to_owned()), ".{0,20}\n"], 0..5),
            superuser in "\\PC{1,9}",
            password: bool,
        ) {
            let users = users.concat();
            let open = hba(&[&superuser], password, Access::Open, &users);
            prop_assert_eq!(Access::parse(&open), Access::Open);
            prop_assert_eq!(users_part(&open), Some(&*users));
            prop_assert_eq!(Access::parse(&hba(&[&superuser], password, Access::Closed, &users)), Access::Closed);
            let _ = Access::parse(&users);
        }
    }

    #[test]
    fn without_a_password_standbys_come_from_loopback_only() {
        let text = hba(&["postgres"], false, Access::Open, "local all all peer\n");
        assert!(text.contains("host replication qluster 127.0.0.0/8 trust\n"), "{text}");
        assert!(text.contains("local postgres \"postgres\" peer map=qluster\n"), "{text}");
        assert_eq!(users_part(&text), Some("local all all peer\n"), "{text}");
        assert_eq!(users_part(&hba(&["postgres"], false, Access::Closed, "local all all peer\n")), None);
        assert!(!text.contains("0.0.0.0/0"), "{text}");
    }

    #[test]
    fn with_a_password_nobody_is_trusted() {
        let text = hba(&["postgres"], true, Access::Open, "");
        assert!(text.contains("host postgres qluster ::/0 scram-sha-256\n"), "{text}");
        assert!(!text.contains("trust"), "{text}");
    }

    #[test]
    fn the_closed_form_has_nothing_of_the_users_and_rejects_whoever_is_left() {
        let text = hba(&["postgres"], true, Access::Closed, "host all all all trust\n");
        assert!(text.contains("local postgres \"postgres\" peer map=qluster_agent\n"), "{text}");
        assert!(text.contains("host replication qluster ::/0 scram-sha-256\n"), "{text}");
        assert!(!text.contains("trust") && text.ends_with("host replication all all reject\n"), "{text}");
        assert_eq!(Access::parse(&text), Access::Closed);
        assert_eq!(Access::parse(&hba(&["postgres"], true, Access::Open, "")), Access::Open);
        assert_eq!(Access::parse(""), Access::Open);
    }

    #[test]
    fn accounts_are_mapped_to_superusers() {
        let text = ident("root", &["root", "postgres"], &["postgres"], "mine a b\n");
        assert!(text.contains("qluster_agent \"root\" qluster\nqluster_agent \"root\" \"postgres\"\n"), "{text}");
        assert!(!text.contains("qluster_agent \"postgres\""), "{text}");
        assert!(text.contains("qluster \"root\" \"postgres\"\nqluster \"postgres\" \"postgres\"\n"), "{text}");
        assert!(text.ends_with("mine a b\n"), "{text}");
    }
}
