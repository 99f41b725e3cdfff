//! Every dependency is in the root `Cargo.toml`, once, with its version and the reason for a pin. Members only name it.

/// The lines of a member's manifest that name a version, a path or a repository themselves, as `LINE: TEXT`.
///
/// A line rule, not a TOML parser: in a table of dependencies, each entry has to say `workspace = true`, in one of the
/// forms `name.workspace = true`, `name = { workspace = true, … }`, or as a line of `[dependencies.name]`.
pub(super) fn violations(manifest: &str) -> Vec<String> {
    let mut violations = Vec::new();
    // What is looked at: nothing, entries of a table of dependencies, or one dependency that is a table of its own, by
    // the line of its header until `workspace = true` is found in it.
    let mut table = Table::Other;
    let mut depth = 0;
    for (number, line) in (1..).zip(manifest.lines()) {
        let text = line.split_once('#').map_or(line, |(before, _)| before).trim();
        let continues = depth > 0;
        depth += brackets(text);
        if continues || text.is_empty() {
            continue;
        }
        if let Some(header) = text.strip_prefix('[') {
            violations.extend(table.unfinished());
            table = Table::of(header.trim_matches(['[', ']']), format!("{number}: {line}"));
            depth = 0;
            continue;
        }
        match &mut table {
            Table::Dependencies if !is_workspace(text) => violations.push(format!("{number}: {line}")),
            Table::One(missing) if text.replace(' ', "") == "workspace=true" => *missing = None,
            _ => {}
        }
    }
    violations.extend(table.unfinished());
    violations
}

enum Table {
    Other,
    Dependencies,
    One(Option<String>),
}

impl Table {
    /// The table of this name, whose header is `line`.
    fn of(name: &str, line: String) -> Self {
        let is_table = |name: &str| name == "dependencies" || name.ends_with("-dependencies");
        // As in `target.'cfg(unix)'.dependencies.name`: a name of a crate has no point in it.
        let mut parts = name.rsplit('.');
        match (parts.next(), parts.next()) {
            (Some(last), _) if is_table(last) => Self::Dependencies,
            (_, Some(before)) if is_table(before) => Self::One(Some(line)),
            _ => Self::Other,
        }
    }

    fn unfinished(&mut self) -> Option<String> {
        match self {
            Self::One(missing) => missing.take(),
            _ => None,
        }
    }
}

/// Whether an entry takes everything that can be said once from the workspace.
fn is_workspace(entry: &str) -> bool {
    let entry = entry.replace(' ', "");
    let Some((name, value)) = entry.split_once('=') else { return false };
    name.ends_with(".workspace") && value == "true"
        || value.starts_with('{') && value.trim_matches(['{', '}']).split(',').any(|part| part == "workspace=true")
}

fn brackets(text: &str) -> i32 {
    let count = |opening, closing| text.matches(opening).count() as i32 - text.matches(closing).count() as i32;
    count('[', ']') + count('{', '}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_only_name_their_dependencies_keep_the_rule() {
        let manifest = "[package]\nname = \"a\"\nversion = \"1\"\n\n[features]\ncli = [\n  \"dep:clap\",\n]\n\n\
                        [dependencies]\nserde.workspace = true\n# why\nuuid = { workspace = true, optional = true }\n\
                        tokio = { features = [\n  \"fs\",\n], workspace = true }\n\n\
                        [dev-dependencies.clap]\nworkspace = true\nfeatures = [\"env\"]\n\n[lints]\nworkspace = true\n";
        // The entry of several lines is judged by its first, which has to say it.
        assert_eq!(violations(manifest), ["14: tokio = { features = ["]);
        let manifest = manifest.replace("{ features = [", "{ workspace = true, features = [");
        assert_eq!(violations(&manifest), Vec::<String>::new());
    }

    #[test]
    fn a_version_or_a_path_of_its_own_is_found_wherever_it_stands() {
        for (manifest, expected) in [
            ("[dependencies]\nuuid = \"1\"\n", "2: uuid = \"1\""),
            ("[dev-dependencies]\n\nuuid = { version = \"1\" } # why\n", "3: uuid = { version = \"1\" } # why"),
            ("[build-dependencies]\nx.path = \"../x\"\n", "2: x.path = \"../x\""),
            ("[target.'cfg(unix)'.dependencies]\nx = \"1\"\n", "2: x = \"1\""),
            ("[dependencies.x]\nversion = \"1\"\n[lints]\nworkspace = true\n", "1: [dependencies.x]"),
            ("[dependencies.x]\nversion = \"1\"\n", "1: [dependencies.x]"),
            ("[dependencies]\nx = { workspace = false, version = \"1\" }\n", "2: x = {"),
        ] {
            let found = violations(manifest);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{manifest}: {found:?}");
        }
    }
}
