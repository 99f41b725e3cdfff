//! A sandbox for the commands of a story.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::blocks::{Block, Manner};
use crate::{cargo, interrupt};

/// The script before the first block. It makes the sandbox, and reports what failed.
const BEGIN: &str = include_str!("begin.sh");

/// The directory of a run. It is removed when this is dropped.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs `blocks` in order. When the last has ended, their namespaces end, and all processes in them.
pub(super) fn run(blocks: &[Block], server: &Path) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("qluster-guide-{}", std::process::id()));
    let work = Work(dir);
    let write = |name: &str, text: &str| {
        let path = work.0.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    std::fs::create_dir(&work.0).with_context(|| format!("creating {}", work.0.display()))?;
    for (number, block) in blocks.iter().enumerate() {
        write(&format!("{number}.sh"), &block.code)?;
    }
    write("all.sh", &script(blocks))?;
    let bin = server.parent().context("the daemon is in no directory")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([bin.to_owned()].into_iter().chain(std::env::split_paths(&path)));
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "bash"]);
    command.arg(work.0.join("all.sh")).env("WORK", &work.0).env("PATH", path?).current_dir(cargo::root());
    // The reader has none of the settings of the user who runs this.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QLUSTER_")) {
        command.env_remove(name);
    }
    let status = command.stdin(Stdio::null()).status().context("starting `unshare`")?;
    interrupt::check()?;
    if status.success() {
        return Ok(());
    }
    let failed = std::fs::read_to_string(work.0.join("failed")).unwrap_or_else(|_| "the sandbox".into());
    bail!("{}: this block does not do what the guide says; see above", failed.trim_end())
}

/// The script that runs the blocks. Their texts are in files beside it.
fn script(blocks: &[Block]) -> String {
    let mut script = BEGIN.to_owned();
    for (number, block) in blocks.iter().enumerate() {
        let how = match block.manner {
            Manner::Once => "once",
            Manner::Until => "until_so",
            Manner::Fails => "fails",
            Manner::Terminal => "terminal",
            Manner::Shown(_) => continue,
        };
        let expect = block.expect.as_deref().unwrap_or_default().replace('\'', r"'\''");
        // Writing to a string does not fail. `once` is not a function, so that variables that a block sets stay set.
        let _ = writeln!(script, "begin {number} '{}:{}' '{expect}'", block.page, block.line);
        let _ = match how {
            "once" => writeln!(script, "source \"$FILE\" >\"$OUT\" 2>&1; printed"),
            how => writeln!(script, "{how}"),
        };
    }
    script.push_str("DONE=yes\n");
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_is_run_in_its_manner_and_one_that_is_shown_is_not() {
        let block = |manner, expect: Option<&str>| Block {
            page: "page".into(),
            line: 3,
            code: String::new(),
            manner,
            expect: expect.map(Into::into),
        };
        let blocks = [
            block(Manner::Once, Some("it's")),
            block(Manner::Shown("why".into()), None),
            block(Manner::Terminal, None),
        ];
        let script = script(&blocks);
        let lines: Vec<_> = script.strip_prefix(BEGIN).unwrap().lines().collect();
        let source = "source \"$FILE\" >\"$OUT\" 2>&1; printed";
        assert_eq!(lines, [r"begin 0 'page:3' 'it'\''s'", source, "begin 2 'page:3' ''", "terminal", "DONE=yes"]);
    }
}
