//! The filter for log lines.

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Filter};

/// Asks an [`EnvFilter`] for each line that may be written.
///
/// By itself, it answers once per callsite, which then takes over what the thread's last check left in the registry: after this
/// filter had refused a library that asked whether it may log, as librdkafka's does for each client, the next line of the thread
/// was lost.
pub(super) struct Asked(pub EnvFilter);

impl<S: Subscriber> Filter<S> for Asked {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        self.0.enabled(metadata, context.clone())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = Filter::<S>::callsite_enabled(&self.0, metadata);
        if interest.is_always() { Interest::sometimes() } else { interest }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.max_level_hint()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.0.on_record(id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.0.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.0.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.0.on_close(id, context);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::filter::Filtered;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::{Layer as _, Registry, fmt};

    use super::*;

    /// The written lines.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_line_is_lost_behind_a_library_that_asks_whether_it_may_log() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone());
        // As at a start without a span collector: without this layer, nothing was lost.
        let spans: Option<Filtered<fmt::Layer<Registry>, LevelFilter, Registry>> = None;
        let filter = Asked(EnvFilter::new("info,librdkafka=warn"));
        let subscriber = tracing_subscriber::registry().with(spans).with(layer.with_filter(filter));
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..3 {
                // Another layer might want the line, so the overall answer may be yes.
                let _ = tracing::enabled!(target: "librdkafka", tracing::Level::INFO);
                tracing::info!("line {n}");
                tracing::info!(target: "librdkafka", "left out");
            }
        });
        let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let written: Vec<_> = said.lines().filter_map(|line| line.split_once("line ")).map(|(_, n)| n).collect();
        assert_eq!((written, said.lines().count()), (vec!["0", "1", "2"], 3), "{said}");
    }
}
