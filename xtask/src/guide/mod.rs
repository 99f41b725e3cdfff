//! The commands of the guide and of the README, run as a reader would type them.
//!
//! Every block of `sh` is run, in order, unless it says why not. Pages that continue each other share a sandbox:
//! namespaces with `/etc` and `/var/lib` of their own. So the very paths and ports in the pages are used, and nothing
//! is left.

pub(crate) mod blocks;
mod sandbox;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{cargo, chaos, install, interrupt};
use blocks::{Block, Manner};

/// Pages that are read one after the other and use one cluster. Every other page starts with an empty machine.
const STORIES: [&[&str]; 1] = [&[
    "docs/start.md",
    "docs/cli.md",
    "docs/nodes.md",
    "docs/switchover.md",
    "docs/timeouts.md",
    "docs/durability.md",
    "docs/poolers.md",
    "docs/codes.md",
    "docs/failover.md",
    "docs/majority.md",
]];

/// The directory of the site, unless another is given.
const SITE: &str = "target/site";

/// Writes the documentation as a site.
pub(crate) fn site(dir: Option<&str>) -> Result<()> {
    let server = cargo::build_programs(false)?.server;
    let dir = dir.map_or_else(|| cargo::root().join(SITE), PathBuf::from);
    let mut command = std::process::Command::new(server);
    command.arg("docs").arg(&dir);
    cargo::run(command)?;
    println!("the documentation begins at {}", dir.join("index.html").display());
    Ok(())
}

/// Runs the commands of all pages, or of the stories that the pages named are in.
pub(crate) fn run(named: &[String]) -> Result<()> {
    let pages = pages()?;
    if let Some(unknown) = named.iter().find(|name| !pages.contains(name)) {
        bail!("there is no page `{unknown}`; the pages are: {}", pages.join(", "));
    }
    let mut stories = Vec::new();
    for story in stories_of(&pages) {
        let mut blocks = Vec::new();
        // A mistake in any page is reported, even if its commands cannot be run here.
        for page in &story {
            let text = std::fs::read_to_string(cargo::root().join(page)).with_context(|| format!("reading {page}"))?;
            blocks.extend(blocks::read(page, &text)?);
        }
        if named.is_empty() || story.iter().any(|page| named.contains(page)) {
            stories.push((story, blocks));
        }
    }
    if let Some(missing) = chaos::missing() {
        println!("the commands of the guide are not run: {missing}");
        return Ok(());
    }
    install::postgresql()?;
    // This builds the command line, too.
    let server = cargo::build_programs(false)?.server;
    interrupt::watch()?;
    for (story, blocks) in stories {
        let (shown, run): (Vec<_>, Vec<_>) =
            blocks.into_iter().partition(|block| matches!(block.manner, Manner::Shown(_)));
        println!("{}: {} blocks to run, {} only shown", story.join(", "), run.len(), shown.len());
        for Block { page, line, manner, .. } in &shown {
            if let Manner::Shown(reason) = manner {
                println!("  {page}:{line} is only shown: {reason}");
            }
        }
        if !run.is_empty() {
            let begun = Instant::now();
            sandbox::run(&run, &server)?;
            println!("  all of them worked, in {:.1} s", begun.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

/// The README and the guide.
fn pages() -> Result<Vec<String>> {
    let docs = cargo::root().join("docs");
    let entries = std::fs::read_dir(&docs).with_context(|| format!("reading {}", docs.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut pages: Vec<_> = names.filter(|name| is_text(name)).map(|name| format!("docs/{name}")).collect();
    pages.sort();
    pages.insert(0, "README.md".into());
    Ok(pages)
}

fn is_text(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "md")
}

/// The stories, with each page in one of them.
fn stories_of(pages: &[String]) -> Vec<Vec<String>> {
    let alone = pages.iter().filter(|page| !STORIES.iter().any(|story| story.contains(&page.as_str())));
    let stories = STORIES.iter().map(|story| story.iter().map(|&page| page.to_owned()).collect());
    alone.map(|page| vec![page.clone()]).chain(stories).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_in_one_story_and_says_how_each_block_is_run() {
        let pages = pages().unwrap();
        let mut found: Vec<_> = stories_of(&pages).concat();
        found.sort();
        let mut sorted = pages.clone();
        sorted.sort();
        assert_eq!(found, sorted);
        for page in pages {
            let text = std::fs::read_to_string(cargo::root().join(&page)).unwrap();
            blocks::read(&page, &text).unwrap();
        }
    }
}
