//! Files for packages: completion scripts and manual pages.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::failure::Failure;
use crate::output::Output;

/// Prints the script that completes commands in `shell`.
pub(super) fn completion(shell: Shell, out: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "qluster", &mut script);
    out.text(String::from_utf8_lossy(&script).trim_end())
}

/// Writes a page for each command: `qluster.1`, `qluster-status.1`, …
pub(super) fn man(dir: &Path) -> Result<(), Failure> {
    let failed = |source| Failure::file(format!("write manual pages into {}", dir.display()), source);
    clap_mangen::generate_to(Args::command(), dir).map_err(failed)
}
