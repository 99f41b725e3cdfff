//! Programs of others that run beside the nodes: a balancer, a pooler, what qluster is measured against.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::Cluster;

/// Such a program; killed when this is dropped.
pub(crate) struct Beside(Child);

impl Beside {
    /// Starts it. Its log, named after it, is one of those whose ends are shown where something fails.
    pub(crate) fn start(cluster: &Cluster, name: &str, mut command: Command) -> Result<Self> {
        let path = cluster.nodes()[0].log().with_file_name(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("opening the log {}", path.display()))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C is for us, who end it.
        command.process_group(0);
        Ok(Self(command.spawn().with_context(|| format!("starting {name}"))?))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
