//! The spans that a collector receives.

use minishop_bus::Headers;
use minishop_testkit::database::Engine;
use minishop_testkit::spans::Spans;

use crate::harness::B;
use crate::world::on;

// One thread, so that the subscriber of this thread sees all spans.
#[tokio::test]
async fn a_request_is_a_span_of_its_callers_trace_and_the_parent_of_its_event() {
    let spans = Spans::of_this_thread();
    on(Engine::Sqlite, async |world| {
        let api = world.api().await;
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let parent = format!("00-{trace}-b7ad6b7169203331-01");
        let json = ("content-type", "application/json");
        for headers in [&[json, ("traceparent", &parent), ("tracestate", "a=1")][..], &[json]] {
            assert_eq!(api.send("POST", "/orders", headers, B.as_bytes()).await.status, 201);
        }
        let calls = spans.named("POST /orders");
        let ids: Vec<_> =
            calls.iter().map(|span| (span.span_context.trace_id().to_string(), span.parent_span_id.to_string())).collect();
        assert_eq!(ids[0], (trace.to_owned(), "b7ad6b7169203331".to_owned()));
        assert_eq!((ids.len(), ids[1].1.as_str()), (2, "0000000000000000"), "a trace of its own");
        let handed_on: Vec<String> = api
            .events()
            .await
            .into_iter()
            .map(|row| Headers::decode(&row.event.headers).unwrap().get("traceparent").unwrap().to_owned())
            .collect();
        for call in calls {
            let own = format!("00-{}-{}-01", call.span_context.trace_id(), call.span_context.span_id());
            assert!(handed_on.contains(&own), "{own} is not in {handed_on:?}");
        }
    })
    .await;
}
