//! Exports spans over OTLP/gRPC if the standard variables name a collector.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tracing::{Level, Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{DynFilterFn, Filtered, dynamic_filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The timeout for exporting the last spans at exit.
const FLUSH: Duration = Duration::from_secs(2);

/// Exports the last spans when the process ends.
#[derive(Debug, Default)]
#[must_use = "spans that are not flushed are lost"]
pub struct Flush(Option<SdkTracerProvider>);

impl Flush {
    /// Exports the remaining spans, for at most two seconds.
    pub async fn finish(self) {
        let Some(provider) = self.0 else { return };
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("cannot export the last spans");
        }
    }
}

/// A layer that exports spans.
pub(super) type Spans<S> = Filtered<OpenTelemetryLayer<S, Tracer>, DynFilterFn<S, Ours<S>>, S>;
type Ours<S> = fn(&Metadata<'_>, &Context<'_, S>) -> bool;

/// Builds the exporting layer; `None` when no collector is named or the SDK is disabled.
///
/// The SDK reads endpoint, headers, timeouts, sampler, batching and resource attributes from its own variables.
pub(super) fn layer<S>(service: &'static str) -> anyhow::Result<Option<(Spans<S>, Flush)>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    #[expect(clippy::disallowed_methods, reason = "the standard variables of OpenTelemetry are part of the configuration")]
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = set("OTEL_EXPORTER_OTLP_ENDPOINT").or_else(|| set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")).is_some();
    let off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    if !named || off {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_tonic().build().map_err(|error| {
        anyhow::anyhow!("error[CONFIG_VALUE] OTEL_EXPORTER_OTLP_ENDPOINT: {error}; give the collector's gRPC address such as http://127.0.0.1:4317")
    })?;
    let mut resource = Resource::builder();
    if set("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service);
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("minishop"));
    // Dynamic, to be asked each time: a callsite with a cached answer takes over what the thread's last check left in the
    // registry, and a span may be lost.
    let ours = dynamic_filter_fn(is_ours as Ours<S>);
    Ok(Some((layer.with_filter(ours), Flush(Some(provider)))))
}

/// Returns whether a span or an event is exported: our own. Spans of libraries would drown ours, and the exporter's would trace the
/// tracing.
fn is_ours<S>(metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
    let level = if metadata.is_span() { Level::DEBUG } else { Level::INFO };
    metadata.target().starts_with("minishop") && *metadata.level() <= level
}
