//! Which crate may depend on which, by what `cargo tree` says; and that versions are in the root `Cargo.toml`
//! alone; and which room of a crate uses which, by the map in `ARCHITECTURE.md`.

mod manifests;
mod rooms;

use anyhow::{Context, Result, bail};

use crate::cargo::{cargo, output, root};

/// A rule: what a package may not depend on, directly or not, and what it must.
struct Rule {
    package: &'static str,
    why: &'static str,
    /// Features to look at it with.
    features: &'static [&'static str],
    /// Packages; a `*` at the end stands for anything.
    forbids: &'static [&'static str],
    /// Features of packages.
    forbids_features: &'static [(&'static str, &'static str)],
    needs: &'static [&'static str],
}

const RULES: [Rule; 6] = [
    Rule {
        package: "qluster-client",
        why: "a client knows the types, not Raft nor the server, and its users generate no code",
        features: &["--all-features"],
        forbids: &["openraft", "redb", "dropshot", "qluster-server", "progenitor", "progenitor-impl", "typify*"],
        forbids_features: &[],
        needs: &["qluster-consensus"],
    },
    Rule {
        package: "qluster-consensus",
        why: "consensus knows neither HTTP nor PostgreSQL and starts no process",
        features: &[],
        forbids: &[
            "dropshot",
            "hyper",
            "reqwest",
            "tokio-postgres",
            "tokio-tungstenite",
            "qluster-server",
            "qluster-client",
        ],
        forbids_features: &[("tokio", "process")],
        needs: &[],
    },
    Rule {
        package: "qluster-consensus",
        why: "without its default features it is the vocabulary alone",
        features: &["--no-default-features"],
        forbids: &["openraft", "tokio", "redb"],
        forbids_features: &[],
        needs: &[],
    },
    Rule {
        package: "qluster-server",
        why: "the server uses consensus and is used by clients, not the other way round",
        features: &[],
        forbids: &["qluster-client"],
        forbids_features: &[],
        needs: &["qluster-consensus"],
    },
    Rule {
        package: "qluster-server",
        why: "without `readonly-statements` the server needs neither PostgreSQL's parser nor libclang",
        features: &["--no-default-features"],
        forbids: &["pg_query", "bindgen", "clang-sys"],
        forbids_features: &[],
        needs: &[],
    },
    Rule {
        package: "xtask",
        why: "xtask compiles before anything else can",
        features: &[],
        forbids: &["qluster-*"],
        forbids_features: &[],
        needs: &[],
    },
];

/// Checks all rules and prints every violation.
pub(crate) fn run() -> Result<()> {
    let mut violations = Vec::new();
    for rule in &RULES {
        let mut tree = cargo(&["tree", "--locked", "--edges=normal,build", "--prefix=none", "--format={p}|{f}"]);
        tree.args(["--package", rule.package]).args(rule.features);
        violations.extend(check(rule, &output(tree)?));
    }
    let members = members()?;
    for manifest in &members {
        let text = std::fs::read_to_string(manifest).with_context(|| format!("reading {manifest}"))?;
        let path = manifest.strip_prefix(&format!("{}/", root().display())).unwrap_or(manifest);
        let lines = manifests::violations(&text).into_iter();
        violations.extend(lines.map(|line| format!("{path}:{line} (name it in the root Cargo.toml instead)")));
    }
    for violation in &violations {
        eprintln!("{violation}");
    }
    if !violations.is_empty() {
        bail!("{} violations of the dependency rules; they are listed above", violations.len());
    }
    println!("{} dependency rules hold; {} manifests name no version", RULES.len(), members.len());
    rooms::run()
}

/// The manifests of all members of the workspace.
fn members() -> Result<Vec<String>> {
    let metadata = output(cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("reading what `cargo metadata` says")?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` names no packages")?;
    Ok(packages.iter().filter_map(|package| package["manifest_path"].as_str().map(str::to_owned)).collect())
}

/// The violations of `rule` in `tree`, whose lines are `name vVERSION…|FEATURE,FEATURE…`.
fn check(rule: &Rule, tree: &str) -> Vec<String> {
    let packages: Vec<(&str, &str)> = tree.lines().filter_map(parse).collect();
    let Rule { package, why, features, .. } = rule;
    let explain = |subject: &str| {
        let command = ["cargo tree -p", package, "-e normal,build"].into_iter().chain(features.iter().copied());
        let command = command.collect::<Vec<_>>().join(" ");
        format!("({why}); to see how: {command} -i {subject}")
    };
    let mut violations = Vec::new();
    let mut found: Vec<_> = packages.iter().map(|(name, _)| *name).collect();
    found.sort_unstable();
    found.dedup();
    for name in &found {
        if rule.forbids.iter().any(|pattern| matches(pattern, name)) {
            violations.push(format!("{package} pulls in {name} {}", explain(name)));
        }
    }
    for (name, feature) in rule.forbids_features {
        if packages.iter().any(|(found, features)| found == name && features.split(',').any(|each| each == *feature)) {
            violations.push(format!("{package} enables {name}'s feature `{feature}` {}", explain(name)));
        }
    }
    for need in rule.needs.iter().filter(|need| !found.contains(need)) {
        violations.push(format!("{package} does not depend on {need} ({why})"));
    }
    violations
}

/// Name and features in a line. cargo marks a package that it has printed before with ` (*)` at the end.
fn parse(line: &str) -> Option<(&str, &str)> {
    let (package, features) = line.split_once('|')?;
    Some((package.split(' ').next()?, features.trim_end_matches(" (*)")))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        package: "qluster-client",
        why: "so it is",
        features: &["--all-features"],
        forbids: &["progenitor", "typify*"],
        forbids_features: &[("tokio", "process")],
        needs: &["qluster-consensus"],
    };

    fn violations(tree: &str) -> Vec<String> {
        check(&RULE, tree)
    }

    #[test]
    fn a_tree_that_keeps_the_rule_has_no_violation() {
        let tree = "qluster-client v0.1.0 (/x/client)|cli,default\n\
                    progenitor-client v0.15.0|\n\
                    tokio v1.50.0|default,net,process-like\n\
                    qluster-consensus v0.1.0 (/x/consensus)| (*)\n\n";
        assert_eq!(violations(tree), Vec::<String>::new());
    }

    #[test]
    fn each_violation_is_named_once_with_the_command_that_explains_it() {
        let tree = "qluster-client v0.1.0 (/x/client)|\n\
                    progenitor v0.15.0|\n\
                    progenitor v0.15.0| (*)\n\
                    typify-macro v0.5.0|\n\
                    tokio v1.50.0|net,process (*)\n";
        let explain = "(so it is); to see how: cargo tree -p qluster-client -e normal,build --all-features -i";
        assert_eq!(
            violations(tree),
            [
                format!("qluster-client pulls in progenitor {explain} progenitor"),
                format!("qluster-client pulls in typify-macro {explain} typify-macro"),
                format!("qluster-client enables tokio's feature `process` {explain} tokio"),
                "qluster-client does not depend on qluster-consensus (so it is)".into(),
            ]
        );
    }
}
