//! The spans that a collector would receive.

use std::sync::{Arc, Mutex};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing_subscriber::layer::SubscriberExt as _;

/// Receives the spans of one thread until it is dropped.
#[derive(Debug)]
pub struct Spans {
    received: Received,
    _subscribed: tracing::subscriber::DefaultGuard,
    _provider: SdkTracerProvider,
}

#[derive(Debug, Clone, Default)]
struct Received(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Received {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Spans {
    /// Receives the spans of this thread from now on.
    pub fn of_this_thread() -> Self {
        let received = Received::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(received.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscribed = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        Self { received, _subscribed: subscribed, _provider: provider }
    }

    /// Returns the ended spans of a name.
    pub fn named(&self, name: &str) -> Vec<SpanData> {
        self.received.0.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect()
    }
}
