//! The blocks of commands in a page, and how each is to be run.

use anyhow::{Context, Result, bail};

/// Languages of blocks that are not commands.
const OTHERS: [&str; 6] = ["text", "yaml", "json", "ini", "sql", "rust"];

/// A block of commands.
#[derive(Debug, PartialEq)]
pub(crate) struct Block {
    pub(crate) page: String,
    /// The line of its first command.
    pub(crate) line: usize,
    pub(crate) code: String,
    pub(crate) manner: Manner,
    /// Text that its output must contain.
    pub(crate) expect: Option<String>,
}

/// How a block is run.
#[derive(Debug, PartialEq)]
pub(crate) enum Manner {
    /// It must succeed. Variables that it sets stay set.
    Once,
    /// It is repeated until it succeeds and prints what is expected.
    Until,
    /// It must fail.
    Fails,
    /// It runs in a terminal of its own, to the end of the story.
    Terminal,
    /// It is not run, for a reason.
    Shown(String),
}

/// The blocks of a page. Fails if the words behind a language are not understood, or a block does not say whether it
/// holds commands.
pub(crate) fn read(page: &str, text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, Option<Block>)> = None;
    let mut after_blank = true;
    let mut in_list = false;
    for (number, line) in (1..).zip(text.lines()) {
        let at = || format!("{page}:{number}");
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (Some(_), Some("")) => {
                let (_, block) = open.take().unwrap_or_default();
                blocks.extend(block);
            }
            (Some((indent, block)), _) => {
                if let Some(block) = block {
                    block.code.push_str(line.get(*indent..).unwrap_or_default());
                    block.code.push('\n');
                }
            }
            (None, Some(info)) => {
                let indent = line.len() - line.trim_start().len();
                let (manner, expect) = match info.split_whitespace().next() {
                    Some("sh") => words(info.trim_start_matches("sh")).with_context(at)?,
                    Some(language) if OTHERS.contains(&language) => {
                        open = Some((indent, None));
                        continue;
                    }
                    _ => bail!("{}: code is `sh` or one of {}, got `{info}`", at(), OTHERS.join(", ")),
                };
                let block = Block { page: page.into(), line: number + 1, code: String::new(), manner, expect };
                open = Some((indent, Some(block)));
            }
            (None, None) => {
                if after_blank && !in_list && line.starts_with("    ") {
                    bail!("{}: indented code does not say whether it is commands: put it between fences", at());
                }
                in_list = line.starts_with("- ")
                    || line.starts_with("1. ")
                    || in_list && (line.is_empty() || line.starts_with(' '));
            }
        }
        after_blank = line.trim().is_empty();
    }
    match open {
        Some(_) => bail!("{page}: a block of code does not end"),
        None => Ok(blocks),
    }
}

/// The words behind the language.
fn words(info: &str) -> Result<(Manner, Option<String>)> {
    let mut manner = Manner::Once;
    let mut expect = None;
    let mut rest = info.trim();
    while !rest.is_empty() {
        let (name, value, after) = match rest.split_once([' ', '=']) {
            Some((name, _)) if rest[name.len()..].starts_with('=') => {
                // Both quotes are allowed, so that the text can contain the other.
                let given = &rest[name.len() + 1..];
                let quoted = ['"', '\''].iter().find_map(|&quote| given.strip_prefix(quote)?.split_once(quote));
                let (value, after) = quoted.with_context(|| format!("{name}= takes a text in quotes"))?;
                (name, Some(value.to_owned()), after)
            }
            Some((name, after)) => (name, None, after),
            None => (rest, None, ""),
        };
        match (name, value) {
            ("until", None) => manner = Manner::Until,
            ("fails", None) => manner = Manner::Fails,
            ("terminal", None) => manner = Manner::Terminal,
            ("shown", Some(reason)) if reason.len() > 10 => manner = Manner::Shown(reason),
            ("shown", _) => bail!("shown=\"…\" takes the reason why it cannot be run"),
            ("expect", Some(text)) => expect = Some(text),
            (word, _) => bail!("`{word}` is not one of until, fails, terminal, shown=\"…\", expect=\"…\""),
        }
        rest = after.trim_start();
    }
    if expect.is_some() && matches!(manner, Manner::Terminal | Manner::Shown(_)) {
        bail!("expect=\"…\" does not go with `terminal` or `shown`: the output of such a block is not read");
    }
    Ok((manner, expect))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_with_the_manner_in_which_it_is_run() {
        let text = "# Page\n\n```sh\nls\n```\n\n- item\n\n  ```sh until expect=\"a b\"\n  cat <<E\n    x\n  E\n  ```\n\n```yaml\na: b\n```\n\
                    \n```sh terminal\nsleep 9\n```\n```sh shown=\"it takes an hour\"\nmake\n```\n```sh fails expect='no \"x\"'\nfalse\n```\n";
        let blocks = read("page", text).unwrap();
        let read: Vec<_> = blocks
            .iter()
            .map(|block| (block.line, block.code.as_str(), &block.manner, block.expect.as_deref()))
            .collect();
        let shown = Manner::Shown("it takes an hour".into());
        assert_eq!(
            read,
            [
                (4, "ls\n", &Manner::Once, None),
                (10, "cat <<E\n  x\nE\n", &Manner::Until, Some("a b")),
                (20, "sleep 9\n", &Manner::Terminal, None),
                (23, "make\n", &shown, None),
                (26, "false\n", &Manner::Fails, Some("no \"x\"")),
            ]
        );
    }

    #[test]
    fn code_of_which_nobody_knows_what_it_is_is_refused() {
        for (text, expected) in [
            ("```\nls\n```\n", "code is `sh` or one of"),
            ("```bash\nls\n```\n", "got `bash`"),
            ("text\n\n    ls\n", "between fences"),
            ("```sh soon\nls\n```\n", "`soon` is not one of"),
            ("```sh shown\nls\n```\n", "takes the reason"),
            ("```sh expect=x\nls\n```\n", "in quotes"),
            ("```sh terminal expect=\"x\"\nls\n```\n", "is not read"),
            ("```sh\nls\n", "does not end"),
        ] {
            let error = format!("{:#}", read("page", text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
