//! A file system for one node, small enough to be filled.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate};

use crate::cargo::run;

/// The name of the file that fills it.
const FILLER: &str = "filler";
/// Space below this, in bytes, is not worth filling.
const PAGE: u64 = 4096;

/// A mounted file system in memory. When this is dropped, it is gone with all files in it.
pub(crate) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one of `size` MiB at `path`, which need not exist.
    pub(crate) fn mount(path: &Path, size: u32) -> Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("creating the directory {}", path.display()))?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}m,mode=0755"), "qluster"]).arg(path);
        run(mount)?;
        Ok(Self { path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills all the space that is left.
    pub(crate) fn fill(&self) -> Result<()> {
        let path = self.path.join(FILLER);
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        // Each time that the disk has too little space, half as much is asked for, down to a page.
        let (mut length, mut step) = (0, 1 << 30);
        while step >= PAGE {
            match fallocate(&file, FallocateFlags::empty(), length, step) {
                Ok(()) => length += step,
                Err(rustix::io::Errno::NOSPC) => step /= 2,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).with_context(|| format!("filling {}", path.display())),
            }
        }
        Ok(())
    }

    /// Frees that space.
    pub(crate) fn free(&self) -> Result<()> {
        let path = self.path.join(FILLER);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: files that a process of the node still holds open go with that process.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.path).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            // Not by `eprintln!`, which may panic: this also runs in a panic.
            let _ = writeln!(std::io::stderr(), "{} could not be unmounted", self.path.display());
        }
    }
}
