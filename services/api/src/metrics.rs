//! The API's metrics. Label values come from closed lists only.

use minishop_core::refusal::{Code, Refusal};
use minishop_platform::ctx::{Labels, Metrics};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::call::Call;

/// The exemplar of a bucket: the trace of a request in it.
type TraceLabel = [(&'static str, String); 1];

/// The API's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    accepts: Family<Labels<2>, Counter>,
    cancels: Family<Labels<1>, Counter>,
    seconds: Family<Labels<1>, HistogramWithExemplars<TraceLabel>>,
    batch: Histogram,
    depth: Gauge,
}

/// The outcome of a request to create an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptLabel {
    Created,
    /// The first answer again.
    Replayed,
    Refused(Code),
}

impl ApiMetrics {
    /// Registers the metrics.
    pub fn register(metrics: &Metrics) -> Self {
        let latency: fn() -> HistogramWithExemplars<TraceLabel> =
            || HistogramWithExemplars::new(exponential_buckets(0.000_5, 2.0, 16));
        Self {
            accepts: metrics.register("api_accepts", "Requests to create an order by outcome"),
            cancels: metrics.register("api_cancels", "Requests to cancel an order by outcome"),
            seconds: metrics.register_as(
                "api_accept_duration_seconds",
                "Time from request to answer",
                Family::new_with_constructor(latency),
            ),
            batch: metrics.histogram("api_intake_batch_orders", "Orders in one statement", 1.0, 9),
            depth: metrics.register("api_intake_queued_orders", "Orders that wait for a writer"),
        }
    }

    /// Counts an answered request to create an order, and observes its duration.
    pub fn answered(&self, call: &Call, outcome: AcceptLabel) {
        let outcome = match outcome {
            AcceptLabel::Created => "created",
            AcceptLabel::Replayed => "replayed",
            AcceptLabel::Refused(code) => code.as_str(),
        };
        let protocol = ("protocol", call.protocol.as_str());
        self.accepts.get_or_create(&[("outcome", outcome), protocol]).inc();
        let trace = [("trace_id", call.trace.trace_id().to_owned())];
        self.seconds.get_or_create(&[protocol]).observe(call.received.elapsed().as_secs_f64(), Some(trace), None);
    }

    /// Counts an answered request to cancel an order.
    pub fn cancelled<T>(&self, outcome: &Result<T, Refusal>) {
        let outcome = outcome.as_ref().map_or_else(|refusal| refusal.code.as_str(), |_| "cancelled");
        self.cancels.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Observes the number of orders in a statement.
    #[expect(clippy::cast_precision_loss, reason = "a batch has at most 256 orders")]
    pub fn batch(&self, orders: usize) {
        self.batch.observe(orders as f64);
    }

    /// Sets the number of orders that wait for a writer.
    pub fn depth(&self, waiting: usize) {
        self.depth.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}
