//! The pipeline's status, sent to its subscribers over REST as server-sent events and over gRPC.

use chrono::{SecondsFormat, TimeDelta};
use minishop_contracts::json;
use minishop_contracts::ops::v1::{GetStatusRequest, WatchStatusRequest, WatchStatusResponse};
use minishop_core::clock::{Clock as _, from_millis};
use minishop_core::parking::State;
use minishop_platform::clock::SystemClock;
use minishop_store::Outage;
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

use crate::harness::Api;
use crate::ops::parked;
use crate::sse::{PATIENCE, Stream};
use crate::world::World;

async fn told(stream: &mut Stream) -> Option<Value> {
    let lines = stream.lines().await?;
    assert_eq!((lines.len(), lines[0].as_str()), (2, "event: status"), "{lines:?}");
    Some(serde_json::from_str(lines[1].strip_prefix("data: ").unwrap()).unwrap())
}

async fn over_grpc(api: &Api) -> Streaming<WatchStatusResponse> {
    api.operators().await.watch_status(WatchStatusRequest {}).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchStatusResponse>) -> Value {
    let told = timeout(PATIENCE, stream.message()).await.expect("something comes").unwrap().unwrap();
    serde_json::from_slice(&json::to_vec(&told)).unwrap()
}

pub async fn a_subscriber_is_sent_the_status_at_once_and_whenever_it_changes(world: &World) {
    let api = world.api().await;
    let (head, mut events) = Stream::open(&api, "/ops/stream", "").await;
    assert!(head.to_lowercase().contains("content-type: text/event-stream\r\n"), "{head}");
    let first = told(&mut events).await.unwrap();
    assert_eq!(first, json!({"status": api.get("/ops/status").await.json(), "operations": []}));
    let mut stream = over_grpc(&api).await;
    assert_eq!(next(&mut stream).await, first, "whoever comes later is told the same at once");

    api.park(vec![parked(1, State::Dead), parked(2, State::Dead)]).await;
    let second = told(&mut events).await.unwrap();
    assert_eq!(second["status"]["parked"], json!({"retrying": 0, "waiting": 0, "dead": 2}));
    assert_eq!(next(&mut stream).await, second);

    let begun = api.command("/ops/dead-letters/redrive", &json!({"filter": {}})).await.json();
    let third = told(&mut events).await.unwrap();
    assert_eq!(third["operations"], json!([begun["operation"]]));
    assert_eq!(next(&mut stream).await, third);
}

pub async fn an_endpoint_that_a_worker_leaves_alone_is_reported_with_its_reason(world: &World) {
    let api = world.api().await;
    let (_, mut events) = Stream::open(&api, "/ops/stream", "").await;
    assert_eq!(told(&mut events).await.unwrap()["status"]["pausedEndpoints"], json!([]));
    // What a worker in another process writes.
    let since = from_millis(SystemClock.now().timestamp_millis());
    let why = "12 of the latest 12 calls failed, of 3 keys; the last: the endpoint answered 503";
    let outage = |wait| Outage { since, why: why.to_owned(), next_probe_at: since + TimeDelta::seconds(wait) };
    api.store.endpoints.report("w1", "http://shop.test:8080", Some(&outage(3_600))).await.unwrap();
    let paused = json!([{
        "endpoint": "http://shop.test:8080",
        "worker": "w1",
        "state": "paused",
        "since": since.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        "reason": why,
        "nextProbeAt": (since + TimeDelta::seconds(3_600)).to_rfc3339_opts(SecondsFormat::AutoSi, true),
    }]);
    assert_eq!(told(&mut events).await.unwrap()["status"]["pausedEndpoints"], paused);
    assert_eq!(api.get("/ops/status").await.json()["pausedEndpoints"], paused);
    let status = api.operators().await.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(serde_json::from_slice::<Value>(&json::to_vec(&status)).unwrap()["pausedEndpoints"], paused);
    api.store.endpoints.report("w1", "http://shop.test:8080", Some(&outage(-1))).await.unwrap();
    assert_eq!(told(&mut events).await.unwrap()["status"]["pausedEndpoints"][0]["state"], "probing");
    api.store.endpoints.report("w1", "http://shop.test:8080", None).await.unwrap();
    assert_eq!(told(&mut events).await.unwrap()["status"]["pausedEndpoints"], json!([]));
}

pub async fn a_later_subscriber_is_sent_nothing_out_of_date(world: &World) {
    let api = world.api().await;
    let (_, mut events) = Stream::open(&api, "/ops/stream", "").await;
    assert_eq!(told(&mut events).await.unwrap()["status"]["parked"]["dead"], 0);
    drop(events);
    api.park(vec![parked(1, State::Dead)]).await;
    // Until the server notices the disconnect, the feed keeps its last status, and the change may come second.
    let mut stream = over_grpc(&api).await;
    let mut told = next(&mut stream).await;
    if told["status"]["parked"]["dead"] == 0 {
        told = next(&mut stream).await;
    }
    assert_eq!(told["status"]["parked"]["dead"], 1);
}

pub async fn a_stream_takes_no_query(world: &World) {
    let api = world.api().await;
    let refused = api.get("/ops/stream?state=dead").await;
    assert_eq!((refused.status, refused.refusal().1), (400, ["state UNKNOWN_FIELD".to_owned()].into()));
}

pub async fn the_drain_ends_it_and_says_when_to_come_again(world: &World) {
    let mut api = world.api().await;
    let (_, mut events) = Stream::open(&api, "/ops/stream", "").await;
    told(&mut events).await.unwrap();
    let mut stream = over_grpc(&api).await;
    next(&mut stream).await;
    api.drain.cancel();
    assert_eq!(told(&mut events).await, None, "the stream just ends");
    let refused = stream.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "SHUTTING_DOWN");
    assert!(refused.get_error_details().retry_info().is_some());
    drop(stream);
    api.ended().await;
}
