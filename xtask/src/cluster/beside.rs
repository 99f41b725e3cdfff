//! Other programs that run beside the nodes: a load balancer, a pooler, a system that qluster is compared with.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::Cluster;

/// Such a program. It is killed when this is dropped.
pub(crate) struct Beside(Child);

impl Beside {
    /// Starts it. Its log is named after it, and its end is shown with those of the first node if something fails.
    pub(crate) fn start(cluster: &Cluster, name: &str, mut command: Command) -> Result<Self> {
        let path = cluster.nodes()[0].log().with_file_name(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("opening the log {}", path.display()))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C goes to us alone, and we end the program.
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
