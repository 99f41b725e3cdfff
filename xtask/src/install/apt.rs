//! Running apt-get without a question.

use std::process::{Command, Stdio};

use crate::cargo::succeeds;
use crate::install::runs;

/// How to run apt-get as root. None if there is no apt-get, or this user is not root and `sudo` asks for a password.
pub(super) fn apt() -> Option<fn(&[&str]) -> Command> {
    if !runs("apt-get") {
        return None;
    }
    if rustix::process::geteuid().is_root() {
        return Some(|args| quiet(Command::new("apt-get"), args));
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"]);
    succeeds(sudo).then_some(|args| {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        quiet(sudo, args)
    })
}

fn quiet(mut apt: Command, args: &[&str]) -> Command {
    apt.args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(args);
    apt.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    apt
}
