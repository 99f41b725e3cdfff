//! The metrics of a node, as Prometheus reads them: `GET /metrics`.
//!
//! Names and units follow Prometheus' conventions: base units, `_total` for what only grows, and no rates, which the
//! reader calculates. `contrib/metrics/README.md` has a table of all metrics, which a test compares with
//! [`Metrics::table`]. Consensus knows nothing of metrics: it calls hooks with times, and answers questions.

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

/// The content type of the answer: the text format, in its only version.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds, in seconds, of histograms for disks and networks: from what is quick to what is a problem.
const TIME_BUCKETS_SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

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
    /// Metrics without measurements.
    ///
    /// # Errors
    ///
    /// A defect in the table of names.
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let mut table = Table::default();
        let gauges = Gauges::new(&mut table)?;
        let fsyncs = "Time that a write to the node's store took, including its fsync.";
        let commits = "Time from a change's entry into the cluster's log until it was applied, at the leader.";
        let leaderships = "How often this node became the leader, by cause: bootstrap (the first leader), failover (the \
                           last leader was lost), handover (the last leader handed over), resumed (this node was the \
                           last leader).";
        let peer_requests = "Time that other nodes took to answer, by kind of request.";
        let peer_failures = "Requests to other nodes without an answer, by node and reason: unreachable or timeout.";
        let requests = "Requests to the REST API that were answered, by code; all unknown paths count as `other`.";
        let request_times = "Time that the REST API took to answer; a long poll takes as long as it waits.";
        Ok(Arc::new(Self {
            fsyncs: table.histogram("qluster_store_fsync_seconds", &[], fsyncs, &TIME_BUCKETS_SECONDS)?,
            commits: table.histogram("qluster_log_commit_seconds", &[], commits, &TIME_BUCKETS_SECONDS)?,
            leaderships: table.counter("qluster_leaderships_total", &["cause"], leaderships)?,
            peer_requests: table.histogram(
                "qluster_peer_request_seconds",
                &["request"],
                peer_requests,
                &TIME_BUCKETS_SECONDS,
            )?,
            peer_failures: table.counter("qluster_peer_failures_total", &["node", "reason"], peer_failures)?,
            requests: table.counter("qluster_api_requests_total", &["method", "path", "code"], requests)?,
            request_times: table.histogram(
                "qluster_api_request_seconds",
                &["method", "path"],
                request_times,
                &TIME_BUCKETS_SECONDS,
            )?,
            gauges,
            table,
            scrape: Mutex::default(),
        }))
    }

    /// All metrics.
    pub fn table(&self) -> &[Metric] {
        self.table.metrics()
    }

    /// Measures the writes of a store.
    pub fn watch_store(&self, store: &Store) {
        let fsyncs = self.fsyncs.with_label_values::<&str>(&[]);
        store.observe(move |took| fsyncs.observe(took.as_secs_f64()));
    }

    /// Measures the commits of a node's consensus, and counts how often it becomes the leader.
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
    ///
    /// # Errors
    ///
    /// A defect: a metric cannot be written.
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

/// A metric that can be registered.
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
    fn the_consensus_of_a_node_without_a_cluster_does_not_run() {
        let text = Metrics::new().unwrap().text(None).unwrap();
        assert!(text.contains("# TYPE qluster_consensus_running gauge\nqluster_consensus_running 0\n"), "{text}");
        assert!(text.contains("qluster_build_info{version="), "{text}");
    }
}
