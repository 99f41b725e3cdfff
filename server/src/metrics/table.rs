//! The table of metrics: each is registered once, with its meaning.

use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, HistogramVec, IntCounterVec, Opts, Registry};

use super::{Registered, options};

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value of this moment.
    Gauge,
    /// A number that only grows, from the node's start.
    Counter,
    /// How often values in each range were seen.
    Histogram,
}

/// A metric, as it is documented.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name; the last word is its unit, if it has one.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels.
    pub labels: Vec<&'static str>,
    /// What it means, in a sentence.
    pub help: String,
}

impl Metric {
    /// Its row in the documentation.
    pub fn row(&self) -> String {
        let kind = match self.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        let labels = self.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        format!("| `{}` | {kind} | {labels} | {} |", self.name, self.help)
    }
}

/// The registered metrics.
#[derive(Default)]
pub(super) struct Table {
    registry: Registry,
    metrics: Vec<Metric>,
}

type Result<T> = std::result::Result<T, prometheus::Error>;

impl Table {
    pub(super) fn gauge(&mut self, name: &'static str, labels: &[&'static str], help: &str) -> Result<GaugeVec> {
        let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
        self.add(Kind::Gauge, name, labels, help, gauge)
    }

    pub(super) fn counter(&mut self, name: &'static str, labels: &[&'static str], help: &str) -> Result<IntCounterVec> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.add(Kind::Counter, name, labels, help, counter)
    }

    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        labels: &[&'static str],
        help: &str,
        bounds: &[f64],
    ) -> Result<HistogramVec> {
        let histogram = HistogramVec::new(options(name, help, bounds), labels)?;
        self.add(Kind::Histogram, name, labels, help, histogram)
    }

    pub(super) fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    fn add<T: Registered>(
        &mut self,
        kind: Kind,
        name: &'static str,
        labels: &[&'static str],
        help: &str,
        metric: T,
    ) -> Result<T> {
        self.registry.register(Box::new(metric.clone()))?;
        self.metrics.push(Metric { name, kind, labels: labels.to_vec(), help: help.into() });
        Ok(metric)
    }
}
