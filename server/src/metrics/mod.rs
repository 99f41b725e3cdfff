//! What is measured, as Prometheus reads it: `GET /metrics`.
//!
//! Names and units are Prometheus' conventions: base units, `_total` for what only grows, and no rates, which are for
//! whoever reads. `contrib/metrics/README.md` has a table of all of them, which a test compares with [`Metrics::table`].
//! Consensus knows none of this: it calls hooks with times, and tells the rest when it is asked.

mod gauges;
mod peers;
mod requests;
mod table;

use std::sync::{Arc, Mutex};

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, TextEncoder};
use qluster_consensus::node::cluster::{CAUSES, Cluster};
use qluster_consensus::raft::store::Store;

use self::gauges::Gauges;
pub use self::peers::Measured;
pub use self::requests::Counted;
use self::table::Table;
pub use self::table::{Kind, Metric};
use crate::os::lock::lock;

/// The type of what is answered: the text format, in the one version that it has.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds in seconds for what takes a disk or a network: from what is quick to what is ill.
const TIMES: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The metrics of a node.
pub struct Metrics {
    table: Table,
    gauges: Gauges,
    fsyncs: HistogramVec,
    commits: HistogramVec,
    leaderships: IntCounterVec,
    peer_requests: HistogramVec,
    peer_failures: IntCounterVec,
    requests: IntCounterVec,
    request_times: HistogramVec,
    /// One scrape at a time: the gauges are set for it.
    scrape: Mutex<()>,
}

impl Metrics {
    /// No measurements yet. An error is a defect in the table of names.
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let mut table = Table::default();
        let gauges = Gauges::new(&mut table)?;
        let fsyncs = "Time that a write to the node's store took, its fsync included.";
        let commits = "Time from a change's entry into the cluster's log to its being applied, at the leader.";
        let leaderships = "Times that this node became the leader, by cause: bootstrap (the first), failover (the leader \
                           before was not heard), handover (it handed over), resumed (it was this node).";
        let peer_requests = "Time that answers of other nodes took, by kind of request.";
        let peer_failures = "Requests to other nodes without an answer, by node and reason: unreachable or timeout.";
        let requests = "Requests to the REST API that were answered, by code; unknown paths are `other`.";
        let request_times = "Time that answers of the REST API took; long polls take as long as they wait.";
        Ok(Arc::new(Self {
            fsyncs: table.histogram("qluster_store_fsync_seconds", &[], fsyncs, &TIMES)?,
            commits: table.histogram("qluster_log_commit_seconds", &[], commits, &TIMES)?,
            leaderships: table.counter("qluster_leaderships_total", &["cause"], leaderships)?,
            peer_requests: table.histogram("qluster_peer_request_seconds", &["request"], peer_requests, &TIMES)?,
            peer_failures: table.counter("qluster_peer_failures_total", &["node", "reason"], peer_failures)?,
            requests: table.counter("qluster_api_requests_total", &["method", "path", "code"], requests)?,
            request_times: table.histogram(
                "qluster_api_request_seconds",
                &["method", "path"],
                request_times,
                &TIMES,
            )?,
            gauges,
            table,
            scrape: Mutex::default(),
        }))
    }

    /// All metrics that there are.
    pub fn table(&self) -> &[Metric] {
        self.table.metrics()
    }

    /// Measures what a store writes.
    pub fn watch_store(&self, store: &Store) {
        let fsyncs = self.fsyncs.with_label_values::<&str>(&[]);
        store.observe(move |took| fsyncs.observe(took.as_secs_f64()));
    }

    /// Measures what a node's consensus commits, and counts when it leads.
    pub fn watch(&self, cluster: &Cluster) {
        let commits = self.commits.with_label_values::<&str>(&[]);
        cluster.observe_commits(move |took| commits.observe(took.as_secs_f64()));
        // Counted from 0, so that the first one is seen as a rise.
        let causes = CAUSES.map(|cause| (cause, self.leaderships.with_label_values(&[cause])));
        cluster.observe_leaderships(move |cause| {
            causes.iter().filter(|(known, _)| *known == cause).for_each(|(_, counter)| counter.inc());
        });
    }

    /// All metrics as they are now, in Prometheus' text format.
    pub fn text(&self, cluster: Option<&Cluster>) -> Result<String, prometheus::Error> {
        let _turn = lock(&self.scrape);
        self.gauges.set(cluster);
        TextEncoder::new().encode_to_string(&self.table.gather())
    }
}

/// A histogram's options.
fn options(name: &str, help: &str, bounds: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(bounds.to_vec())
}

/// What can be registered.
trait Registered: Collector + Clone + 'static {}

impl<T: Collector + Clone + 'static> Registered for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_by_convention_and_the_documentation_has_all_of_them() {
        let metrics = Metrics::new().unwrap();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/metrics/README.md");
        let text = std::fs::read_to_string(path).unwrap();
        let documented: Vec<&str> = text.lines().filter(|line| line.starts_with("| `qluster_")).collect();
        let emitted: Vec<String> = metrics.table().iter().map(Metric::row).collect();
        assert_eq!(documented.join("\n"), emitted.join("\n"), "expected these rows:\n{}", emitted.join("\n"));
        for Metric { name, kind, help, .. } in metrics.table() {
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(help.ends_with('.') && !help.contains('|'), "{name}");
        }
    }

    #[test]
    fn a_node_without_a_cluster_tells_that_its_consensus_does_not_run() {
        let text = Metrics::new().unwrap().text(None).unwrap();
        assert!(text.contains("# TYPE qluster_consensus_running gauge\nqluster_consensus_running 0\n"), "{text}");
        assert!(text.contains("qluster_build_info{version="), "{text}");
    }
}
