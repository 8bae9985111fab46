//! Exported spans.

use minishop_bus::Headers;
use minishop_testkit::database::Engine;
use minishop_testkit::spans::Spans;
use opentelemetry_sdk::trace::SpanData;

use crate::records::created;
use crate::shop;

/// On one thread, so that the subscriber sees everything.
#[tokio::test]
async fn an_orders_span_goes_on_with_the_records_trace_and_is_the_processed_events_parent() {
    // With PostgreSQL, one statement is tried first, and does not fit: nobody announced these orders here.
    for engine in [Engine::Sqlite, Engine::Postgres] {
        each_event_has_one_span(engine).await;
    }
}

async fn each_event_has_one_span(engine: Engine) {
    let spans = Spans::of_this_thread();
    shop::on(engine, async |shop| {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let processed = created().header("traceparent", parent).header("tracestate", "a=1");
        let duplicate = processed.clone().with("/eventId", "another");
        let untraced = created();
        shop.step(&[processed.record(), duplicate.record(), untraced.record()]).await;

        let spans = spans.named("worker.order.process");
        let told = |span: &SpanData, key: &str| {
            span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string()).unwrap_or_default()
        };
        let outcomes: Vec<_> = spans.iter().map(|span| told(span, "outcome")).collect();
        assert_eq!(outcomes, ["processed", "duplicate", "processed"]);
        for span in &spans[..2] {
            assert_eq!(span.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
            assert_eq!((span.parent_span_id.to_string().as_str(), span.parent_span_is_remote), ("b7ad6b7169203331", true));
            assert_eq!(told(span, "order.id"), processed.text("/data/orderId"));
            assert_eq!(told(span, "correlation_id"), processed.text("/correlationId"));
            assert_eq!(told(span, "trace_id"), "0af7651916cd43dd8448eb211c80319c");
        }
        let published = shop.published("orders.processed").await;
        let headers: Vec<_> = published.into_iter().map(|row| Headers::decode(&row.event.headers).unwrap()).collect();
        for (span, headers) in [&spans[0], &spans[2]].into_iter().zip(&headers) {
            let context = &span.span_context;
            let expected = format!("00-{}-{}-01", context.trace_id(), context.span_id());
            assert_eq!(headers.get("traceparent"), Some(&*expected), "the next step is a child of the span that was exported");
        }
        assert_eq!((headers[0].get("tracestate"), headers[1].get("tracestate")), (Some("a=1"), None));
        assert_eq!(told(&spans[2], "trace_id"), spans[2].span_context.trace_id().to_string(), "a trace of its own");
    })
    .await;
}
