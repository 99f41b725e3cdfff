//! Who may connect: qluster's own lines, and then the user's.

use super::settings::ROLE;

/// Begins files that are qluster's.
const HEAD: &str = "# Written by qluster, and overwritten. Your own lines belong into";

/// The text of qluster's `hba_file`: the agent by the unix socket, standbys, and then the user's `pg_hba.conf`.
///
/// Standbys without a password are let in from loopback only.
pub(super) fn hba(superusers: &[&str], with_password: bool, users: &str) -> String {
    let mut text = format!("{HEAD} pg_hba.conf.\n");
    for superuser in superusers {
        text += &format!("local postgres {} peer map=qluster\n", name(superuser));
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
    // Nobody else may be that role, whatever the user's lines say.
    for database in ["replication", "all"] {
        text += &format!("local {database} {ROLE} reject\nhost {database} {ROLE} all reject\n");
    }
    text + "# From pg_hba.conf:\n" + users
}

/// The text of qluster's `ident_file`: which accounts of the system are which superuser, and then the user's.
pub(super) fn ident(accounts: &[&str], superusers: &[&str], users: &str) -> String {
    let mut text = format!("{HEAD} pg_ident.conf.\n");
    for account in accounts {
        for superuser in superusers {
            text += &format!("qluster {} {}\n", name(account), name(superuser));
        }
    }
    text + "# From pg_ident.conf:\n" + users
}

/// A name, quoted so that it is no keyword.
fn name(name: &str) -> String {
    format!("\"{}\"", name.replace(['"', '\n'], ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_password_standbys_come_from_loopback_only() {
        let text = hba(&["postgres"], false, "local all all peer\n");
        assert!(text.contains("host replication qluster 127.0.0.0/8 trust\n"), "{text}");
        assert!(text.contains("local postgres \"postgres\" peer map=qluster\n"), "{text}");
        assert!(text.ends_with("local all all peer\n"), "{text}");
        assert!(!text.contains("0.0.0.0/0"), "{text}");
    }

    #[test]
    fn with_a_password_nobody_is_trusted() {
        let text = hba(&["postgres"], true, "");
        assert!(text.contains("host postgres qluster ::/0 scram-sha-256\n"), "{text}");
        assert!(!text.contains("trust"), "{text}");
    }

    #[test]
    fn accounts_are_mapped_to_superusers() {
        let text = ident(&["root", "postgres"], &["postgres"], "mine a b\n");
        assert!(text.contains("qluster \"root\" \"postgres\"\nqluster \"postgres\" \"postgres\"\n"), "{text}");
        assert!(text.ends_with("mine a b\n"), "{text}");
    }
}
