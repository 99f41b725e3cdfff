//! A root directory for a package: an overlay over this machine's, which keeps all changes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{output, run};

/// A script that records how it was called. The scripts of the package run it instead of systemd's program.
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$*\" >>/run/systemctl.log\n";

/// A root. When this is dropped, it is gone with all files in it.
pub(crate) struct Root {
    base: PathBuf,
}

impl Root {
    /// Makes a root in the directory `base`, which need not exist. None if the kernel does not permit it.
    pub(crate) fn create(base: &Path) -> Result<Option<Self>> {
        std::fs::create_dir_all(base).with_context(|| format!("creating {}", base.display()))?;
        let mut memory = Command::new("mount");
        memory.args(["-t", "tmpfs", "-o", "mode=0755", "qluster"]).arg(base);
        run(memory)?;
        let this = Self { base: base.to_owned() };
        for dir in ["upper", "work", "root"] {
            std::fs::create_dir(base.join(dir)).with_context(|| format!("creating {dir} in {}", base.display()))?;
        }
        let options = format!("lowerdir=/,upperdir={0}/upper,workdir={0}/work", base.display());
        let mut overlay = Command::new("mount");
        overlay.args(["-t", "overlay", "-o", &options, "qluster"]).arg(this.path());
        if !overlay.status().is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        // As on a host that runs systemd.
        std::fs::create_dir_all(this.at("run/systemd/system"))?;
        this.write("usr/local/sbin/systemctl", SYSTEMCTL)?;
        let mut executable = Command::new("chmod");
        executable.arg("755").arg(this.at("usr/local/sbin/systemctl"));
        run(executable)?;
        Ok(Some(this))
    }

    fn path(&self) -> PathBuf {
        self.base.join("root")
    }

    /// The path of a file of the root, seen from outside.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn read(&self, path: &str) -> Result<String> {
        std::fs::read_to_string(self.at(path)).with_context(|| format!("reading {path} in the root"))
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> Result<()> {
        let place = self.at(path);
        let parent = place.parent().unwrap_or(&place);
        let written = std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&place, text));
        written.with_context(|| format!("writing {path} in the root"))
    }

    /// Runs a program in the root, and returns its output.
    pub(crate) fn run(&self, command: &[&str]) -> Result<String> {
        let mut chroot = Command::new("chroot");
        chroot.arg(self.path()).args(command);
        chroot.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        chroot.env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null());
        output(chroot)
    }

    /// Installs a package, or another version of it.
    pub(crate) fn install(&self, package: &Path) -> Result<()> {
        let inside = "/run/qluster.deb";
        std::fs::copy(package, self.at(inside)).with_context(|| format!("copying {}", package.display()))?;
        // Triggers belong to other packages, and are slow. `confold` keeps settings that a person has changed.
        let dpkg = ["dpkg", "--no-triggers", "--force-confold", "--force-downgrade", "--install", inside];
        self.run(&dpkg).map(drop)
    }

    /// The calls of systemctl by the package's scripts since the last time.
    pub(crate) fn systemctl(&self) -> Result<Vec<String>> {
        let path = self.at("/run/systemctl.log");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if path.exists() {
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let mounted = [self.path(), self.base.clone()];
        for path in mounted.iter().filter(|path| path.exists()) {
            // Lazily: files that a process still holds open go with that process. The overlay may not have been
            // mounted.
            let mut unmount = Command::new("umount");
            let unmounted = unmount.arg("--lazy").arg(path).stderr(std::process::Stdio::null()).status();
            if !unmounted.is_ok_and(|status| status.success()) && *path == self.base {
                // Not by `eprintln!`, which may panic: this also runs in a panic.
                let _ = writeln!(std::io::stderr(), "{} could not be unmounted", path.display());
            }
        }
    }
}
