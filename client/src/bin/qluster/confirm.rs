//! Confirmation before a command interrupts clients or may lose data.

use std::io::{IsTerminal, Write};

use crate::failure::Failure;

/// Succeeds if `yes` is set or if the user agrees at the terminal. Without a terminal, it fails.
pub(crate) async fn confirm(yes: bool, warning: &str) -> Result<(), Failure> {
    ask(yes, warning, "Go on? [y/N] ", |answer| matches!(answer.to_lowercase().as_str(), "y" | "yes")).await
}

/// Like [`confirm`], for what cannot be undone: the user must type `word`.
pub(crate) async fn confirm_by_word(yes: bool, warning: &str, word: &str) -> Result<(), Failure> {
    ask(yes, warning, &format!("Type `{word}` to go on: "), |answer| answer == word).await
}

async fn ask(yes: bool, warning: &str, question: &str, agreed: impl Fn(&str) -> bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::NobodyToAsk(warning.into()));
    }
    match agreed(&read(format!("{warning}\n{question}")).await?) {
        true => Ok(()),
        false => Err(Failure::Declined),
    }
}

/// Whether the user wants to try again; without a terminal, false.
pub(crate) async fn again(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    Ok(!matches!(read(format!("{question} [Y/n] ")).await?.to_lowercase().as_str(), "n" | "no"))
}

/// Asks on standard error, because a program may read standard output. It reads in a thread of its own, so that Ctrl-C
/// still ends the program.
async fn read(question: String) -> Result<String, Failure> {
    let asked = tokio::task::spawn_blocking(move || {
        eprint!("{question}");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    });
    let answer = asked.await.map_err(std::io::Error::other).flatten();
    answer.map_err(|source| Failure::file("read the answer", source))
}
