//! Output: tables for people, JSON and YAML for programs.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

/// The format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs; each of several answers is a line
    Json,
    /// For programs and people; each of several answers is a document
    Yaml,
}

/// Whether to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    Auto,
    Always,
    Never,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    pub(crate) style: Style,
    /// Whether standard output is a terminal.
    pub(crate) terminal: bool,
}

/// How tables look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) colour: bool,
    /// Width of the terminal in columns; `None` if there is no terminal.
    pub(crate) width: Option<u16>,
}

/// How good or bad a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Caution,
    Bad,
}

impl Output {
    pub(crate) fn new(format: Format, colour: Colour) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && !dumb && !set("NO_COLOR"),
        };
        // Otherwise the library for tables would decide by NO_COLOR alone.
        crossterm::style::force_color_output(colour);
        let width = terminal.then(|| crossterm::terminal::size().ok()).flatten().map(|(columns, _)| columns);
        Self { format, style: Style { colour, width }, terminal }
    }

    /// Prints an answer.
    pub(crate) fn show<T: Serialize>(&self, answer: &T, table: impl FnOnce(Style) -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.text(&table(self.style)),
            Format::Json => self.text(&json(serde_json::to_string_pretty(answer))?),
            Format::Yaml => self.text(yaml(answer)?.trim_end()),
        }
    }

    /// Prints one of several answers.
    pub(crate) fn item<T: Serialize>(&self, answer: &T, line: impl FnOnce(Style) -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.text(&line(self.style)),
            Format::Json => self.text(&json(serde_json::to_string(answer))?),
            Format::Yaml => self.text(&format!("---\n{}", yaml(answer)?.trim_end())),
        }
    }

    /// Prints lines. `println!` would panic if the reader is gone.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let written = writeln!(out, "{text}").and_then(|()| out.flush());
        written.map_err(|source| Failure::file("write to standard output", source))
    }
}

fn json(text: serde_json::Result<String>) -> Result<String, Failure> {
    text.map_err(|error| Failure::Format("JSON", error.to_string()))
}

fn yaml<T: Serialize>(answer: &T) -> Result<String, Failure> {
    serde_norway::to_string(answer).map_err(|error| Failure::Format("YAML", error.to_string()))
}

/// A table without lines. Its columns are two blanks apart.
pub(crate) fn table<'a>(
    style: Style,
    header: impl IntoIterator<Item = &'a str>,
    rows: impl IntoIterator<Item = impl IntoIterator<Item = Cell>>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if style.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    // An address that is wrapped within its column cannot be copied. The terminal wraps long lines.
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(
        header.into_iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)).collect::<Vec<Cell>>(),
    );
    for row in rows {
        table.add_row(row.into_iter().collect::<Vec<Cell>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A cell.
pub(crate) fn cell(text: impl ToString, tone: Tone) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Caution => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
    }
}

/// A cell without colour.
pub(crate) fn plain(text: impl ToString) -> Cell {
    cell(text, Tone::Plain)
}

/// A cell without colour; `-` if there is no value.
pub(crate) fn optional(value: Option<impl ToString>) -> Cell {
    plain(value.map_or_else(|| "-".into(), |value| value.to_string()))
}

/// A number of bytes for people, in powers of 1024, in the form of PostgreSQL's `pg_size_pretty`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut value = count;
    let mut unit = 0;
    while value >= 10 * 1024 && unit + 1 < UNITS.len() {
        value = value / 1024 + value % 1024 / 512;
        unit += 1;
    }
    format!("{value} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_postgresql_does() {
        for (count, expected) in [
            (0, "0 bytes"),
            (128, "128 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (16_777_216, "16 MB"),
            (10_737_418_240, "10 GB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
        assert!(bytes(u64::MAX).ends_with(" TB"));
    }
}
