//! Watches on orders, over REST as server-sent events and over gRPC.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use futures::{StreamExt as _, stream};
use minishop_contracts::json;
use minishop_contracts::orders::v1::order_service_client::OrderServiceClient;
use minishop_contracts::orders::v1::{Order, WatchOrderRequest};
use minishop_testkit::database::Engine;
use minishop_testkit::wait::eventually;
use prost::Message as _;
use serde_json::Value;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::cancels::{cancelled, made};
use crate::grpc::framed;
use crate::harness::Api;
use crate::sse::{PATIENCE, Stream};
use crate::world::{World, on};

/// A watch over REST.
struct Events(Stream);

impl Events {
    async fn open(api: &Api, id: &str, headers: &str) -> (String, Self) {
        let (head, stream) = Stream::open(api, &format!("/orders/{id}/events"), headers).await;
        (head, Self(stream))
    }

    /// Reads one event: its id, and the order.
    async fn next(&mut self) -> Option<(i64, Value)> {
        let lines = self.0.lines().await?;
        assert_eq!((lines.len(), lines[1].as_str()), (3, "event: order"), "{lines:?}");
        let order = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
        Some((lines[0].strip_prefix("id: ").unwrap().parse().unwrap(), order))
    }

    /// Reads to the end; returns the version and status of each order.
    async fn rest(&mut self) -> Vec<(i64, String)> {
        let mut all = Vec::new();
        while let Some((id, order)) = self.next().await {
            assert_eq!(order["version"], id);
            all.push((id, order["status"].as_str().unwrap().to_owned()));
        }
        all
    }
}

async fn over_grpc(api: &Api, id: &str, resume_token: i32) -> Result<Streaming<Order>, Status> {
    let request = WatchOrderRequest { order_id: id.to_owned(), resume_token };
    Ok(api.client().await.watch_order(request).await?.into_inner())
}

async fn all(mut stream: Streaming<Order>) -> Vec<(i64, String)> {
    let mut all = Vec::new();
    while let Some(order) = timeout(PATIENCE, stream.message()).await.expect("something comes").unwrap() {
        all.push((i64::from(order.version), order.status().as_str_name().to_owned()));
    }
    all
}

/// Changes every order as a worker does, but without a hint.
async fn process_all(api: &Api) {
    api.database.sql("UPDATE orders SET status = 'processed', version = version + 1 WHERE status = 'created'").await;
}

async fn until_watched(api: &Api, count: usize) {
    api.until_metric("api_watches", count).await;
}

fn polls(api: &Api, by: &str) -> usize {
    let name = format!("minishop_api_watch_polls_total{{by=\"{by}\",outcome=\"ok\"}} ");
    api.scrape().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

fn versions(pairs: &[(i64, &str)]) -> Vec<(i64, String)> {
    pairs.iter().map(|(version, status)| (*version, (*status).to_owned())).collect()
}

pub async fn a_watcher_is_told_each_version_once_and_then_the_stream_ends(world: &World) {
    let api = world.api().await;
    let id = made(&api).await;
    let (head, mut events) = Events::open(&api, &id.to_uppercase(), "x-correlation-id: corr-w\r\n").await;
    let head = head.to_lowercase();
    for line in ["200 ok", "content-type: text/event-stream\r\n", "cache-control: no-store", "x-correlation-id: corr-w"] {
        assert!(head.contains(line), "{head}");
    }
    let (version, first) = events.next().await.unwrap();
    assert_eq!((version, &first), (1, &api.get(&format!("/orders/{id}")).await.json()));
    let mut stream = over_grpc(&api, &id, 0).await.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().version, 1);
    process_all(&api).await;
    let (version, last) = events.next().await.unwrap();
    assert_eq!((version, &last), (2, &api.get(&format!("/orders/{id}")).await.json()));
    assert_eq!(last["status"], "processed");
    assert_eq!(events.next().await, None, "it ends behind a final status");
    let told = stream.message().await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&json::to_vec(&told)).unwrap(), last);
    assert_eq!(stream.message().await.unwrap(), None);
    until_watched(&api, 0).await;
}

pub async fn a_token_leaves_out_what_was_seen_and_nothing_else(world: &World) {
    let api = world.api().await;
    let processed = made(&api).await;
    process_all(&api).await;
    let open = made(&api).await;
    let both = versions(&[(1, "created"), (2, "processed")]);
    let last = both[1..].to_vec();
    for (token, wanted) in [(None, &both), (Some("0"), &both), (Some(""), &both), (Some("1"), &last), (Some("7"), &last)] {
        let header = token.map_or_else(String::new, |token| format!("last-event-id: {token}\r\n"));
        assert_eq!(&Events::open(&api, &processed, &header).await.1.rest().await, wanted, "{token:?}");
    }
    for (token, wanted) in [(0, &both), (1, &last), (7, &last), (2, &Vec::new())] {
        assert_eq!(&all(over_grpc(&api, &processed, token).await.unwrap()).await, wanted, "{token}");
    }
    let seen = api.send("GET", &format!("/orders/{processed}/events"), &[("last-event-id", "2")], b"").await;
    assert_eq!((seen.status, seen.body.len(), seen.header("content-type")), (204, 0, None), "nothing follows the last version");

    // Token 7 is above the newest version, as after a restore of the store: the current version comes first.
    let mut watches = Vec::new();
    for (token, first) in [("0", Some(1)), ("1", None), ("7", Some(1))] {
        let (_, mut events) = Events::open(&api, &open, &format!("last-event-id: {token}\r\n")).await;
        if first.is_some() {
            assert_eq!(events.next().await.map(|(version, _)| version), first, "{token}");
        }
        watches.push(events);
    }
    until_watched(&api, 3).await;
    process_all(&api).await;
    for mut events in watches {
        assert_eq!(events.rest().await, last);
    }
}

pub async fn a_token_that_is_no_version_is_refused(world: &World) {
    let api = world.api().await;
    let id = made(&api).await;
    let path = format!("/orders/{id}/events");
    let wrong = BTreeSet::from(["resumeToken INVALID_TOKEN".to_owned()]);
    let mut bodies = BTreeSet::new();
    for token in ["-1", "abc", "1.5", "99999999999999999999999"] {
        let by_header = api.send("GET", &path, &[("last-event-id", token)], b"").await;
        let by_query = api.get(&format!("{path}?resumeToken={token}")).await;
        let by_id = api.get(&format!("{path}?lastEventId={token}")).await;
        for answer in [by_header, by_query, by_id] {
            assert_eq!((answer.status, answer.refusal().1), (400, wrong.clone()), "{token}");
            bodies.insert(answer.body);
        }
    }
    assert_eq!(bodies.len(), 1, "the same bytes");
    let twice = api.send("GET", &path, &[("last-event-id", "1"), ("last-event-id", "2")], b"").await;
    assert_eq!(twice.refusal().1, wrong);
    let unknown = api.get(&format!("{path}?resumetoken=1")).await;
    assert_eq!(unknown.refusal().1, BTreeSet::from(["resumetoken UNKNOWN_FIELD".to_owned()]));
    let refused = over_grpc(&api, &id, -1).await.unwrap_err();
    let found = refused.get_error_details().bad_request().unwrap().field_violations[0].clone();
    assert_eq!((found.field.as_str(), found.reason.as_str()), ("resume_token", "INVALID_TOKEN"));

    process_all(&api).await;
    let by_query = api.get(&format!("{path}?resumeToken=2")).await;
    assert_eq!(by_query.status, 204, "a first request of a browser can set no header");
    let again = api.send("GET", &format!("{path}?resumeToken=0"), &[("last-event-id", "2")], b"").await;
    assert_eq!(again.status, 204, "the header is newer than the query, which browsers repeat");
    for query in ["lastEventId=2", "resumeToken=0&lastEventId=2", "lastEventId=2&resumeToken=1"] {
        assert_eq!(api.get(&format!("{path}?{query}")).await.status, 204, "{query}: a polyfill sets no header");
    }
    let header = api.send("GET", &format!("{path}?lastEventId=0"), &[("last-event-id", "2")], b"").await;
    assert_eq!(header.status, 204, "the header goes before it");
    let twice = api.get(&format!("{path}?lastEventId=1&lastEventId=2")).await;
    assert_eq!(twice.refusal().1, BTreeSet::from(["lastEventId DUPLICATE_FIELD".to_owned()]));
}

pub async fn a_cancel_wakes_those_who_watch_before_the_next_poll(world: &World) {
    let api = world.api().await;
    let (id, other) = (made(&api).await, made(&api).await);
    let (_, mut events) = Events::open(&api, &id, "last-event-id: 1\r\n").await;
    let (_, _others) = Events::open(&api, &other, "last-event-id: 1\r\n").await;
    until_watched(&api, 2).await;
    assert_eq!(cancelled(&api, &id).await.status, 200);
    assert_eq!(events.rest().await, versions(&[(2, "cancelled")]));
    assert_eq!(polls(&api, "hint"), 1, "one read for what has changed");
    let scraped = api.scrape();
    assert!(scraped.contains("minishop_api_watch_delivery_duration_seconds_count 1\n"), "{scraped}");
}

pub async fn two_thousand_watchers_cost_one_read_a_tick(world: &World) {
    const CONNECTIONS: usize = 25;
    const EACH: usize = 80;
    let api = world.api().await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(made(&api).await);
    }
    let clients: Vec<OrderServiceClient<_>> = join_all((0..CONNECTIONS).map(|_| api.client())).await;
    let watches = clients.iter().enumerate().flat_map(|(n, client)| {
        (0..EACH).map({
            let ids = &ids;
            move |m| {
                let (mut client, order_id) = (client.clone(), ids[(n * EACH + m) % ids.len()].clone());
                async move { client.watch_order(WatchOrderRequest { order_id, resume_token: 1 }).await.unwrap().into_inner() }
            }
        })
    });
    // Each watch begins with a read, for which there are eight connections.
    let streams: Vec<_> = stream::iter(watches).buffered(16).collect().await;
    until_watched(&api, CONNECTIONS * EACH).await;
    let (began, before) = (Instant::now(), polls(&api, "tick"));
    let five_ticks = async || polls(&api, "tick") >= before + 5;
    eventually(PATIENCE, "all are read again and again", five_ticks).await;
    process_all(&api).await;
    for told in join_all(streams.into_iter().map(all)).await {
        assert_eq!(told, versions(&[(2, "processed")]));
    }
    // A tick takes at least a tenth of a second.
    let (polls, most) = (polls(&api, "tick") - before, began.elapsed().as_millis() / 100 + 2);
    assert!(polls as u128 <= most, "{polls} reads in {:?}", began.elapsed());
    until_watched(&api, 0).await;
}

pub async fn the_drain_ends_watches_at_once_and_says_when_to_come_again(world: &World) {
    let mut api = world.api().await;
    let id = made(&api).await;
    let (_, mut events) = Events::open(&api, &id, "").await;
    assert_eq!(events.next().await.unwrap().0, 1);
    let mut stream = over_grpc(&api, &id, 1).await.unwrap();
    until_watched(&api, 2).await;
    let began = Instant::now();
    api.drain.cancel();
    assert_eq!(events.next().await, None, "the stream just ends");
    let refused = stream.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "SHUTTING_DOWN");
    assert!(details.retry_info().unwrap().retry_delay.unwrap() >= Duration::from_secs(1));
    drop(stream);
    api.ended().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

pub async fn a_watcher_that_goes_away_is_forgotten(world: &World) {
    let api = world.api().await;
    let id = made(&api).await;
    let (_, events) = Events::open(&api, &id, "last-event-id: 1\r\n").await;
    let stream = over_grpc(&api, &id, 1).await.unwrap();
    until_watched(&api, 2).await;
    drop((events, stream));
    until_watched(&api, 0).await;
    let quiet = polls(&api, "tick");
    api.works().await;
    assert!(polls(&api, "tick") <= quiet + 1, "nobody watches, so nothing is read");
}

pub async fn grpc_web_carries_a_watch_over_http_1(world: &World) {
    let api = world.api().await;
    let id = made(&api).await;
    process_all(&api).await;
    let message = framed(0, &WatchOrderRequest { order_id: id, resume_token: 0 }.encode_to_vec());
    for kind in ["application/grpc-web+proto", "application/grpc-web-text"] {
        let body = if kind.ends_with("text") { STANDARD.encode(&message).into_bytes() } else { message.clone() };
        let head = format!(
            "POST /minishop.orders.v1.OrderService/WatchOrder HTTP/1.0\r\nhost: localhost\r\ncontent-type: {kind}\r\n\
             accept: {kind}\r\nx-grpc-web: 1\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = api.raw_to(api.grpc, &[head.as_bytes(), &body].concat()).await;
        assert_eq!(answer.status, 200);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if kind.ends_with("proto") {
            let mut told = Vec::new();
            let mut rest = &answer.body[..];
            while !rest.is_empty() && rest[0] == 0 {
                let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
                told.push(Order::decode(&rest[5..5 + length]).unwrap().version);
                rest = &rest[5 + length..];
            }
            assert_eq!(told, [1, 2]);
            assert!(String::from_utf8_lossy(rest).contains("grpc-status:0"), "{text}");
        } else {
            assert!(!text.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_watch_is_kept_open_by_comments() {
    on(Engine::Sqlite, async |world| {
        let api = world.api().await;
        let id = made(&api).await;
        let (_, mut events) = Events::open(&api, &id, "last-event-id: 1\r\n").await;
        let began = Instant::now();
        assert_eq!(events.0.lines().await.unwrap(), [": nothing new"]);
        assert!((14..18).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        process_all(&api).await;
        assert_eq!(events.rest().await, versions(&[(2, "processed")]));
    })
    .await;
}
