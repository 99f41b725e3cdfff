//! The operating system account that PostgreSQL runs under.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::error::{Error, Result};

/// An account, and how to run programs under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
}

/// The account of the daemon, and the one for PostgreSQL.
#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    /// Name of the daemon's own account.
    pub(crate) daemon: String,
    /// The account of PostgreSQL.
    pub(crate) database: Account,
    /// Whether the daemon is root, and changes to the account `database` to run programs.
    pub(crate) drops: bool,
    /// util-linux's setpriv, if it is installed. It also sets supplementary groups (often one of them may read a TLS key).
    setpriv: Option<PathBuf>,
    privilege: Privilege,
}

/// What helps the daemon to survive a loaded machine, and what PostgreSQL must not inherit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Privilege {
    /// Its niceness; negative if it gets the processor before others.
    nice: i32,
    /// Whether the kernel spares it when memory runs out.
    spared: bool,
}

impl Privilege {
    fn own() -> Self {
        let nice = rustix::process::getpriority_process(None).unwrap_or(0);
        let score = std::fs::read_to_string("/proc/self/oom_score_adj");
        let spared = score.is_ok_and(|score| score.trim().parse::<i32>().is_ok_and(|score| score < 0));
        Self { nice, spared }
    }

    /// A command that runs `program` without these privileges. The postmaster remains spared when memory runs out, so that
    /// the kernel kills a session and not the database. PostgreSQL itself takes the privilege from its sessions
    /// (PostgreSQL's documentation, "Managing Kernel Resources").
    fn shed(self, program: &Path) -> Command {
        let mut command = match self.nice {
            // By a program: PostgreSQL could have children before its niceness was set from here.
            nice if nice < 0 => {
                let mut command = Command::new("nice");
                command.arg("-n").arg((-nice).to_string()).arg(program);
                command
            }
            _ => Command::new(program),
        };
        command.env_clear();
        if self.spared {
            command.env("PG_OOM_ADJUST_FILE", "/proc/self/oom_score_adj").env("PG_OOM_ADJUST_VALUE", "0");
        }
        command
    }
}

impl Accounts {
    /// Looks up the accounts. If the daemon is root, PostgreSQL gets the account `os_user` (default: `postgres`).
    pub(crate) fn find(os_user: Option<&str>) -> Result<Self> {
        let (uid, privilege) = (rustix::process::geteuid().as_raw(), Privilege::own());
        let passwd = Path::new("/etc/passwd");
        let table = std::fs::read_to_string(passwd).map_err(Error::file("read", passwd))?;
        let own = account(&table, |account| account.uid == uid).or_else(|| directory(&uid.to_string()));
        if uid != 0 {
            let own = own.ok_or_else(|| Error::Unfit(format!("the daemon runs as uid {uid}, which has no account")))?;
            return Ok(Self { daemon: own.name.clone(), database: own, drops: false, setpriv: None, privilege });
        }
        let name = os_user.unwrap_or("postgres");
        let database =
            account(&table, |account| account.name == name).or_else(|| directory(name)).ok_or_else(|| {
                Error::Unfit(format!(
                    "there is no account `{name}` to run PostgreSQL under: create it or set `os-user`"
                ))
            })?;
        if database.uid == 0 {
            return Err(Error::Unfit("PostgreSQL refuses to run as root: set `os-user` to another account".into()));
        }
        let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].map(PathBuf::from).into_iter().find(|path| path.exists());
        Ok(Self { daemon: own.map_or("root".into(), |own| own.name), database, drops: true, setpriv, privilege })
    }

    /// A command that runs `program` under the account of PostgreSQL. It has its own process group, so that a signal that
    /// ends the daemon does not reach it, and its own environment, since the daemon's may contain secrets.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = match &self.setpriv {
            Some(setpriv) => {
                let mut command = self.privilege.shed(setpriv);
                command.arg("--reuid").arg(self.database.uid.to_string());
                command.arg("--regid").arg(self.database.gid.to_string());
                command.arg("--init-groups").arg("--").arg(program);
                command
            }
            None => {
                let mut command = self.privilege.shed(program);
                if self.drops {
                    command.uid(self.database.uid).gid(self.database.gid);
                }
                command
            }
        };
        command.process_group(0).stdin(Stdio::null()).current_dir("/");
        for name in ["PATH", "TZ", "LD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // qluster reads the output of programs: it must be in English.
        command.env("LC_MESSAGES", "C").env("HOME", &self.database.home).env("USER", &self.database.name);
        command
    }
}

/// The first account in a table such as `/etc/passwd` for which `fits` is true.
fn account(table: &str, fits: impl Fn(&Account) -> bool) -> Option<Account> {
    table.lines().filter_map(parse).find(fits)
}

fn parse(line: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
    Some(Account { name: name.into(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into() })
}

/// An account that is in a directory service and not in `/etc/passwd`.
fn directory(key: &str) -> Option<Account> {
    let output = std::process::Command::new("getent").arg("passwd").arg(key).output().ok()?;
    std::str::from_utf8(&output.stdout).ok()?.lines().find_map(parse)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_line_is_an_account_or_none(line in "[a-z:0-9+-]{0,40}|(\\PC{0,5}:){0,9}") {
            let _ = parse(&line);
        }
    }

    #[tokio::test]
    async fn programs_run_without_the_privileges_of_the_daemon() {
        let privilege = Privilege { nice: -3, spared: true };
        let said = privilege.shed(Path::new("/usr/bin/nice")).output().await.unwrap().stdout;
        let niceness: i32 = String::from_utf8(said).unwrap().trim().parse().unwrap();
        assert_eq!(niceness, (Privilege::own().nice + 3).min(19));
        let said = privilege.shed(Path::new("/usr/bin/env")).output().await.unwrap().stdout;
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said, "PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj\nPG_OOM_ADJUST_VALUE=0\n");
        let said = Privilege::default().shed(Path::new("/usr/bin/env")).output().await.unwrap().stdout;
        assert_eq!(String::from_utf8(said).unwrap(), "");
    }

    #[test]
    fn accounts_are_found_and_odd_lines_are_passed_over() {
        let table =
            "root:x:0:0:root:/root:/bin/sh\n\n+::::::\nodd\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/sh\n";
        let found = account(table, |account| account.name == "postgres");
        let expected = Account { name: "postgres".into(), uid: 101, gid: 104, home: "/var/lib/postgresql".into() };
        assert_eq!(found, Some(expected));
        assert_eq!(account(table, |account| account.name == "odd"), None);
    }
}
