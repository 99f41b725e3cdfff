//! Asking before what hurts.

use std::io::{IsTerminal, Write};

use crate::failure::Failure;

/// Goes on where `yes` was given, or where whoever sits at the terminal says so. Where nobody does, it is refused.
pub(crate) async fn confirm(yes: bool, warning: &str) -> Result<(), Failure> {
    ask(yes, warning, "Go on? [y/N] ", |answer| matches!(answer.to_lowercase().as_str(), "y" | "yes")).await
}

/// The same for what cannot be undone: `word` is to be typed.
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

/// Whether to try again what failed; without a terminal, not.
pub(crate) async fn again(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    Ok(!matches!(read(format!("{question} [Y/n] ")).await?.to_lowercase().as_str(), "n" | "no"))
}

/// Asks on standard error, since standard output may be read by a program. In a thread: Ctrl-C must be heard.
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
