//! Which rooms of a crate use which, checked against the room map in `ARCHITECTURE.md`.
//!
//! A room is a folder or a file directly below a crate's `src`. The map is a table below the heading `Rooms of CRATE`:
//! a row a room, from the bottom to the top, with what the room may use. What holds is read from the sources, by the
//! paths `crate::ROOM` in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cargo::root;

/// The file with the map, from the root of the workspace.
const MAP: &str = "ARCHITECTURE.md";

/// Names that one room of a crate alone may have in its code: crate, room, name, and why.
const ALONE: [(&str, &str, &str, &str); 4] = [
    ("consensus", "raft", "openraft", "an alpha, whose types must not spread"),
    ("consensus", "raft", "redb", "what is on disk is written in one place"),
    ("server", "statements", "pg_query", "PostgreSQL's parser can be left out of a build"),
    ("server", "peer", "tokio_tungstenite", "one channel between nodes"),
];

/// A room as the map has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Room {
    name: String,
    may_use: Vec<String>,
}

/// A use of a room, or of a name, in the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    /// The room that the line is in.
    room: String,
    /// The file, from the root of the workspace, and the line, from 1.
    place: String,
    /// The room that is used.
    uses: String,
}

/// Checks the rooms of all crates that the map has, and the names that belong to one room.
pub(crate) fn run() -> Result<()> {
    let text = std::fs::read_to_string(root().join(MAP)).with_context(|| format!("reading {MAP}"))?;
    let mut violations = Vec::new();
    let maps = maps(&text)?;
    for (crate_name, rooms) in &maps {
        let sources = sources(&root().join(crate_name).join("src"))?;
        violations.extend(order(crate_name, rooms));
        violations.extend(presence(crate_name, rooms, sources.iter().map(|(room, ..)| room.as_str())));
        for (room, place, code) in &sources {
            let code = without_comments(code);
            for (number, uses) in rooms_named(&code) {
                let place = format!("{place}:{number}");
                violations.extend(check(rooms, &Use { room: room.clone(), place, uses }));
            }
            for (number, line) in (1..).zip(code.lines()) {
                violations.extend(alone(crate_name, room, &format!("{place}:{number}"), line));
            }
        }
    }
    for violation in &violations {
        eprintln!("{violation}");
    }
    if !violations.is_empty() {
        bail!("{} violations of the room map in {MAP}, named above", violations.len());
    }
    println!("the rooms of {} are as {MAP} says", maps.keys().cloned().collect::<Vec<_>>().join(" and "));
    Ok(())
}

/// The room maps of all crates, by crate.
fn maps(text: &str) -> Result<BTreeMap<String, Vec<Room>>> {
    let mut maps: BTreeMap<String, Vec<Room>> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix('#') {
            let name = heading.trim_start_matches('#').trim().strip_prefix("Rooms of ");
            current = name.map(|name| name.trim_matches('`').to_owned());
        } else if let (Some(name), Some(room)) = (&current, row(line)) {
            maps.entry(name.clone()).or_default().push(room);
        }
    }
    match ["consensus", "server"].into_iter().find(|name| !maps.contains_key(*name)) {
        Some(name) => bail!("{MAP} has no table of rooms below a heading `Rooms of {name}`"),
        None => Ok(maps),
    }
}

/// A row of a table of rooms: its first cell names the room, its last one the rooms that it may use.
fn row(line: &str) -> Option<Room> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
    let [name, _, may_use] = cells[..] else { return None };
    let name = quoted(name).next()?;
    Some(Room { name, may_use: quoted(may_use).collect() })
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// Rooms that may use one that is not below them.
fn order(crate_name: &str, rooms: &[Room]) -> Vec<String> {
    let mut violations = Vec::new();
    for (index, room) in rooms.iter().enumerate() {
        for used in &room.may_use {
            if !rooms[..index].iter().any(|below| below.name == *used) {
                violations.push(format!(
                    "{MAP}: `{}` of {crate_name} may use `{used}`, which is no room below it",
                    room.name
                ));
            }
        }
    }
    violations
}

/// Rooms that are on the map or in the sources alone.
fn presence<'a>(crate_name: &str, rooms: &[Room], found: impl Iterator<Item = &'a str>) -> Vec<String> {
    let found: std::collections::BTreeSet<&str> = found.collect();
    let missing = rooms.iter().filter(|room| !found.contains(room.name.as_str()));
    let missing = missing.map(|room| format!("{MAP}: {crate_name} has no room `{}`", room.name));
    let unknown = found.iter().filter(|name| !rooms.iter().any(|room| room.name == **name));
    let unknown = unknown.map(|name| format!("{crate_name}/src: the room `{name}` is not on the map in {MAP}"));
    missing.chain(unknown).collect()
}

/// How a use breaks the map, if it does.
fn check(rooms: &[Room], used: &Use) -> Option<String> {
    let Use { room, place, uses } = used;
    // Names that are no rooms are macros and items of the crate's root.
    if room == uses || !rooms.iter().any(|room| room.name == *uses) {
        return None;
    }
    let may = rooms.iter().find(|known| known.name == *room).is_some_and(|known| known.may_use.contains(uses));
    (!may).then(|| format!("{place}: the room `{room}` uses `{uses}`, which {MAP} does not allow"))
}

/// How a line names what belongs to another room alone, if it does.
fn alone(crate_name: &str, room: &str, place: &str, line: &str) -> Option<String> {
    let (_, _, name, why) = ALONE
        .iter()
        .find(|(of, only, name, _)| *of == crate_name && *only != room && words(line).any(|word| word == *name))?;
    let only = ALONE.iter().find(|(of, _, other, _)| *of == crate_name && other == name).map(|(_, only, ..)| only)?;
    Some(format!("{place}: `{name}` is named outside of the room `{only}` ({why})"))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|char: char| !char.is_alphanumeric() && char != '_')
}

/// The rooms that code names by a path from the crate's root, each with its line, from 1.
fn rooms_named(code: &str) -> Vec<(usize, String)> {
    let first_word = |text: &str| words(text.trim()).next().map(str::to_owned);
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let after = &code[at + path.len()..];
        let names = match after.strip_prefix('{') {
            Some(list) => top_level(list).iter().filter_map(|item| first_word(item)).collect(),
            None => Vec::from_iter(first_word(after)),
        };
        found.extend(names.into_iter().filter(|name| !name.is_empty()).map(|name| (line, name)));
    }
    found
}

/// The items of a list in braces, without splitting those that have braces of their own. Ends at the closing brace.
fn top_level(list: &str) -> Vec<String> {
    let (mut items, mut depth) = (vec![String::new()], 0);
    for char in list.chars() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        items.last_mut().expect("there is always one").push(char);
    }
    items
}

/// The code with its comment lines empty: comments name rooms above to explain something, which is no use of them.
fn without_comments(code: &str) -> String {
    let blank = |line: &'_ str| if line.trim_start().starts_with("//") { String::new() } else { line.to_owned() };
    code.lines().map(blank).collect::<Vec<_>>().join("\n")
}

/// All Rust files below `src` with the room that they are in: room, path from the root of the workspace, text. The root
/// of the crate and its programs are in no room.
fn sources(src: &Path) -> Result<Vec<(String, String, String)>> {
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = vec![src.to_owned()];
    while let Some(dir) = dirs.pop() {
        let entries = std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("reading {}", dir.display()))?.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let inside = path.strip_prefix(src).unwrap_or(&path).to_string_lossy().into_owned();
            let Some(stem) = inside.strip_suffix(".rs") else { continue };
            let room = stem.split('/').next().unwrap_or(stem);
            if ["lib", "main", "bin"].contains(&room) {
                continue;
            }
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let place = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
            found.push((room.to_owned(), place, text));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
### Rooms of consensus

| room | holds | may use |
|---|---|---|
| `model` | words | |
| `raft` | openraft, see `core` | `model` |

### Rooms of server

| room | holds | may use |
|---|---|---|
| `os` | processes | |

## Else

| `raft` | no room | `os` |
";

    fn rooms() -> Vec<Room> {
        maps(TEXT).unwrap().remove("consensus").unwrap()
    }

    #[test]
    fn the_map_is_read_from_its_tables_alone() {
        let room = |name: &str, may_use: &[&str]| Room {
            name: name.into(),
            may_use: may_use.iter().map(|&name| name.into()).collect(),
        };
        assert_eq!(rooms(), [room("model", &[]), room("raft", &["model"])]);
        assert_eq!(maps(TEXT).unwrap()["server"], [room("os", &[])]);
        assert!(maps("## Rooms of consensus\n").is_err());
    }

    #[test]
    fn a_room_uses_only_what_its_row_allows() {
        for (room, line, expected) in [
            ("raft", "use crate::model::NodeId;", None),
            ("raft", "    crate::raft::core::lock()", None),
            ("model", "    #[serde(with = \"text\")] x: crate::raft::Core,", Some("uses `raft`")),
            ("model", "use crate::{model::{A, B}, raft};", Some("uses `raft`")),
            ("model", "use crate::{\n    model::A,\n    raft::B,\n};", Some("uses `raft`")),
            ("model", "// crate::raft is told of", None),
            ("model", "let x = crate::unknown!();", None),
        ] {
            let found: Vec<_> = rooms_named(&without_comments(line))
                .into_iter()
                .filter_map(|(number, uses)| {
                    check(&rooms(), &Use { room: room.into(), place: format!("a.rs:{number}"), uses })
                })
                .collect();
            match expected {
                None => assert_eq!(found, Vec::<String>::new(), "{line}"),
                Some(text) => assert!(
                    found.len() == 1 && found[0].starts_with("a.rs:1: ") && found[0].contains(text),
                    "{found:?}"
                ),
            }
        }
    }

    #[test]
    fn a_map_that_looks_up_or_is_not_what_there_is_is_refused() {
        let mut rooms = rooms();
        assert_eq!(order("consensus", &rooms), Vec::<String>::new());
        rooms[0].may_use.push("raft".into());
        assert_eq!(order("consensus", &rooms).len(), 1);
        assert_eq!(presence("consensus", &rooms, ["model", "raft"].into_iter()), Vec::<String>::new());
        assert_eq!(presence("consensus", &rooms, ["model", "node"].into_iter()).len(), 2);
    }

    #[test]
    fn a_name_that_belongs_to_one_room_is_found_elsewhere() {
        assert!(alone("consensus", "node", "a.rs:1", "use openraft::Raft;").unwrap().contains("`openraft`"));
        for (room, line) in [("raft", "use openraft::Raft;"), ("node", "let openrafts = 1;")] {
            assert_eq!(alone("consensus", room, "a.rs:1", line), None);
        }
    }
}
