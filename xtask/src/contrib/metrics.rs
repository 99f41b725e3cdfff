//! `contrib/metrics`: the alert rules and the dashboard, and the metrics of the nodes that they use.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cargo::{root, run};
use crate::cluster::Cluster;
use crate::{http, install};

/// Metrics that a cluster may lack even after its leading node was killed.
const RARE: [&str; 1] = ["qluster_peer_failures_total"];

fn promtool() -> Result<Command> {
    install::tool("promtool", "prometheus")
}

fn file(name: &str) -> PathBuf {
    root().join("contrib/metrics").join(name)
}

fn read(name: &str) -> Result<String> {
    std::fs::read_to_string(file(name)).with_context(|| format!("reading {}", file(name).display()))
}

/// Checks that the alert rules are valid, and that each alert is raised by what it is for and by nothing else.
pub(super) fn check_rules() -> Result<()> {
    for (task, name) in [("check", "alerts.yml"), ("test", "alerts_test.yml")] {
        let mut command = promtool()?;
        command.args([task, "rules"]).arg(file(name));
        run(command)?;
    }
    Ok(())
}

/// Checks that the nodes export exactly the documented metrics, as Prometheus reads them, and that the rules and the
/// dashboard use no others.
pub(super) fn check(cluster: &Cluster) -> Result<()> {
    let documented = documented(&read("README.md")?)?;
    let mut exported = BTreeSet::new();
    for node in cluster.nodes() {
        let answer = http::get(node.api(), "/metrics")?;
        if answer.status != 200 {
            bail!("node {} answers /metrics with {}: {}", node.number, answer.status, answer.body);
        }
        lint(&answer.body).with_context(|| format!("of node {}", node.number))?;
        for (name, kind) in types(&answer.body) {
            match documented.get(name) {
                Some(known) if known == kind => exported.insert(name.to_owned()),
                known => bail!("node {} exports the {kind} {name}, which is documented as {known:?}", node.number),
            };
        }
    }
    let silent = documented.keys().filter(|name| !exported.contains(*name) && !RARE.contains(&name.as_str()));
    let silent: Vec<_> = silent.collect();
    if !silent.is_empty() {
        bail!("no node exports {silent:?}, which are documented");
    }
    serde_json::from_str::<serde_json::Value>(&read("grafana.json")?).context("reading grafana.json")?;
    for name in ["alerts.yml", "alerts_test.yml", "grafana.json"] {
        let text = read(name)?;
        let unknown: Vec<_> = names(&text).filter(|name| !known(&documented, name)).collect();
        if !unknown.is_empty() {
            bail!("{name} uses {unknown:?}, which no node exports");
        }
    }
    println!("metrics: {} are documented, and all of them are exported", documented.len());
    Ok(())
}

/// Fails if promtool complains of a page of metrics.
fn lint(page: &str) -> Result<()> {
    let mut command = promtool()?;
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().context("starting promtool")?;
    promtool.stdin.take().context("promtool has no standard input")?.write_all(page.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    match output.status.success() && said.is_empty() {
        true => Ok(()),
        false => bail!("promtool complains: {}", String::from_utf8_lossy(&said)),
    }
}

/// Names and kinds of metrics, from the rows of the documentation.
fn documented(text: &str) -> Result<BTreeMap<String, String>> {
    let rows = text.lines().filter(|line| line.starts_with("| `qluster_"));
    let cells = rows.map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>());
    let metrics: Option<_> = cells.map(|cells| Some((cells.get(1)?.to_string(), cells.get(2)?.to_string()))).collect();
    metrics.context("expected rows of a name and a kind")
}

/// Names and kinds of the metrics in a page.
fn types(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
}

/// The names of our metrics in a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("qluster_"))
}

/// Whether a metric is documented, or is a part of a histogram that is.
fn known(documented: &BTreeMap<String, String>, name: &str) -> bool {
    let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| name.strip_suffix(part));
    documented.contains_key(name)
        || parts.into_iter().any(|name| documented.get(name).is_some_and(|kind| kind == "histogram"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_kinds_are_read_and_parts_of_a_histogram_are_known() {
        let documented = documented("| name | kind |\n| `qluster_a_seconds` | histogram | `b` | A. |\n").unwrap();
        assert_eq!(documented["qluster_a_seconds"], "histogram");
        assert!(known(&documented, "qluster_a_seconds_bucket") && !known(&documented, "qluster_b"));
        let page = "# HELP qluster_term T.\n# TYPE qluster_term gauge\nqluster_term 7\n";
        assert_eq!(types(page).collect::<Vec<_>>(), [("qluster_term", "gauge")]);
        let found: Vec<_> = names("rate(qluster_x_total{job=\"qluster\"}[1m])").collect();
        assert_eq!(found, ["qluster_x_total"]);
    }
}
