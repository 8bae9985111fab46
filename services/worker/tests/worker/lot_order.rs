//! The order of a key's events, whatever fails: in the lot, over restarts, and in the topic.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use minishop_contracts::events::Envelope;
use minishop_contracts::events::v1::OrderCreated;
use minishop_core::ids::OrderId;
use minishop_platform::ctx::Ctx;
use minishop_testkit::topics::read;
use minishop_testkit::wait::{PATIENCE, eventually};
use minishop_worker::handlers::HandlerPlace;
use minishop_worker::upcast::{Step, Versions, read_v1};
use minishop_worker::{LotTask, Processor, WorkerMetrics, WorkerShared};
use rand::Rng as _;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::handler::{Reaction, done, failed, scripted};
use crate::hands::Hands;
use crate::log::log;
use crate::records::{Sent, created};
use crate::shop::{self, Shop};

/// Creates `each` events per customer, in turns.
fn by_turns(customers: usize, each: usize) -> Vec<Sent> {
    let first: Vec<Sent> = (0..customers).map(|_| created()).collect();
    let rest = (1..each).flat_map(|_| first.iter().map(Sent::same_customer).collect::<Vec<_>>());
    first.clone().into_iter().chain(rest).collect()
}

/// Returns the orders of each key, in the order of their events.
fn of_keys(events: &[Sent]) -> HashMap<Bytes, Vec<OrderId>> {
    let mut orders: HashMap<Bytes, Vec<OrderId>> = HashMap::new();
    for event in events {
        orders.entry(event.key.clone().unwrap()).or_default().push(event.order_id());
    }
    orders
}

/// Returns the orders of each key, in the order of their unpublished processed events.
async fn published(shop: &Shop) -> HashMap<Bytes, Vec<OrderId>> {
    let mut orders: HashMap<Bytes, Vec<OrderId>> = HashMap::new();
    for row in shop.published("orders.processed").await {
        orders.entry(row.event.record_key).or_default().push(row.event.order_id.unwrap());
    }
    orders
}

async fn stream(worker: &Hands, events: &[Sent]) {
    for batch in events.chunks(7) {
        worker.stream(&batch.iter().map(Sent::record).collect::<Vec<_>>()).await;
    }
}

pub async fn one_failing_customer_holds_up_nobody_else(shop: Shop) {
    let broken = Arc::new(AtomicBool::new(true));
    let events = by_turns(10, 5);
    let bad = events[6].key.clone().unwrap();
    let handler = {
        let (broken, bad) = (broken.clone(), bad.clone());
        scripted(move |delivery, _| if broken.load(Ordering::SeqCst) && delivery.record_key == bad { failed() } else { done() })
    };
    let mut worker = shop.hands(handler.place());
    stream(&worker, &events).await;
    worker.drain().await;
    let (mut others, all) = (of_keys(&events), of_keys(&events));
    others.remove(&bad);
    assert_eq!(published(&shop).await, others, "nine flow, each in its order");
    for _ in 0..9 {
        shop.age(Duration::from_hours(12)).await;
        worker.drain().await;
    }
    let states: Vec<_> = shop.parked().await.into_iter().map(|parked| (parked.state, parked.attempts)).collect();
    let waiting = ("waiting".to_owned(), 0);
    assert_eq!(states, [vec![("dead".to_owned(), 8)], vec![waiting; 4]].concat(), "no state is skipped behind the head");
    assert_eq!(handler.calls().iter().filter(|id| **id == all[&bad][0]).count(), 8);
    assert_eq!(shop.published("orders.created.dlq").await.len(), 1);
    broken.store(false, Ordering::SeqCst);
    let now = if shop.is_distributed() { "clock_timestamp()" } else { "0" };
    let set = format!("state = 'retrying', attempts = 0, redrives = 1, next_attempt_at = {now}");
    shop.sql(&format!("UPDATE parked SET {set} WHERE state = 'dead'")).await;
    worker.drain().await;
    assert_eq!((published(&shop).await, shop.parked().await.len()), (all, 0), "the tenth follows in its order");
}

/// Upcasts to version 2, whose lines are keyed by product.
fn by_product(mut data: Value) -> Result<Value, String> {
    let lines = data["items"].as_array().ok_or("no lines")?.clone();
    let named = lines.into_iter().map(|line| (line["productId"].as_str().unwrap_or_default().to_owned(), line));
    data["items"] = Value::Object(named.collect::<Map<_, _>>());
    Ok(data)
}

fn read_v2(envelope: &Envelope<'_>) -> Result<OrderCreated, String> {
    let mut data: Value = serde_json::from_str(envelope.data.get()).map_err(|error| error.to_string())?;
    let lines = data["items"].as_object().ok_or("items: WRONG_TYPE")?.values().cloned().collect::<Vec<_>>();
    data["items"] = Value::Array(lines);
    let data = serde_json::value::to_raw_value(&data).map_err(|error| error.to_string())?;
    read_v1(&Envelope { data: &data, ..envelope.clone() })
}

pub fn newer() -> Versions {
    Versions::new(vec![Step::Same, Step::Rewrite(by_product)], read_v2)
}

pub fn version_2(event: Sent) -> Sent {
    let lines = event.json["data"]["items"].clone();
    let data = by_product(json!({ "items": lines })).unwrap();
    event.with("/type", "orders.created.v2").with("/data/items", data["items"].clone())
}

pub async fn a_held_event_flows_with_its_followers_once_a_newer_worker_runs(shop: Shop) {
    let held = version_2(created().header("ce_client", "a").header("ce_sequence", "7"));
    let known = {
        let event = created().accepted(&shop, "a").await;
        version_2(event)
    };
    let behind = [held.same_customer(), version_2(held.same_customer()), held.same_customer(), known.same_customer()];
    let all: Vec<Sent> = [held, known].into_iter().chain(behind).collect();
    let mut old = shop.hands(HandlerPlace::Stream);
    stream(&old, &all).await;
    shop.age(Duration::from_hours(1)).await;
    old.lot.make_due().await.unwrap();
    assert_eq!((old.drain().await, shop.parked().await.len()), (0, 6), "an older worker leaves them alone");
    let mut newer = shop.hands_that_read(HandlerPlace::Stream, newer());
    assert_eq!(newer.lot.make_due().await.unwrap(), 2, "the heads are due for a worker that can read them");
    assert_eq!((old.drain().await, newer.drain().await), (0, 6));
    assert_eq!((published(&shop).await, shop.parked().await.len()), (of_keys(&all), 0));
    for event in &all {
        let order = shop.order(event.order_id()).await.unwrap();
        assert_eq!((&*order.status, order.total_minor), ("processed", 2100));
    }
    let later = [version_2(all[0].same_customer()), all[0].same_customer()];
    stream(&newer, &later).await;
    assert_eq!(published(&shop).await, of_keys(&all.into_iter().chain(later).collect::<Vec<_>>()), "and the stream reads both");
}

pub async fn workers_side_by_side_keep_every_keys_order_whatever_fails(shop: Shop) {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let events = by_turns(9, 6);
    // Each order fails up to two times, and some calls never end.
    let silent = Arc::new(AtomicUsize::new(0));
    let handler = scripted(move |delivery, before| {
        let dice = usize::from(delivery.order_id.0.as_bytes()[15]);
        match (dice + before * 7) % 5 {
            0 if silent.fetch_add(1, Ordering::SeqCst) < 6 => Reaction::Hang,
            1 | 2 if before < 2 => failed(),
            _ => done(),
        }
    });
    let stores = [shop.store.clone(), shop.second().await];
    // Calls that a slow machine cuts off must not use up the attempts.
    let hands = |n: usize| shop.hands_on(stores[n].clone(), WorkerShared::new(handler.place(), Versions::current()), 10_000);
    let mut workers = [hands(0), hands(1)];
    stream(&workers[0], &events[..30]).await;
    for round in 0_u64.. {
        assert!(round < 400, "it comes to an end");
        if round == 3 {
            stream(&workers[1], &events[30..]).await;
        }
        let mut patience = || match round {
            0..8 => Duration::from_micros(random.random_range(500..60_000)),
            _ => Duration::from_secs(2),
        };
        let patience = [patience(), patience()];
        let [one, two] = &mut workers;
        let step = async |worker: &mut Hands, patience| tokio::time::timeout(patience, worker.lot.step()).await.is_ok();
        let ended = futures::join!(step(one, patience[0]), step(two, patience[1]));
        // A worker that was cut off, wherever it was, is gone like a killed process.
        if !ended.0 {
            workers[0] = hands(0);
        }
        if !ended.1 {
            workers[1] = hands(1);
        }
        shop.age(Duration::from_hours(12)).await;
        workers[0].lot.make_due().await.unwrap();
        if round > 3 && shop.count("parked WHERE state <> 'dead'").await == 0 {
            break;
        }
    }
    let dead = shop.count("parked").await;
    assert_eq!(dead, 0, "seed {seed}: nobody failed eight times");
    assert_eq!(handler.first_calls(), of_keys(&events), "seed {seed}: handled in their order");
    assert_eq!(published(&shop).await, of_keys(&events), "seed {seed}: settled in their order, once each");
    assert_eq!(shop.count("timeline WHERE kind = 'processed'").await, i64::try_from(events.len()).unwrap());
}

pub async fn a_key_that_the_lot_has_let_go_is_published_in_its_order(shop: Shop) {
    let log = log(&shop).await;
    let (ctx, relay) = shop::ctx(&shop.store, &log.brokers, "lot", &log.prefix);
    let held: Vec<Sent> = (0..300).map(|_| version_2(created())).collect();
    let behind: Vec<Vec<Sent>> = (0..4).map(|_| held.iter().map(Sent::same_customer).collect()).collect();
    let metrics = || WorkerMetrics::register(&ctx.metrics);
    Processor::new(&ctx, metrics(), WorkerShared::new(HandlerPlace::Stream, Versions::current()))
        .step(&held.iter().map(Sent::record).collect::<Vec<_>>(), &[])
        .await
        .unwrap();
    let setup = WorkerShared::new(HandlerPlace::Stream, newer());
    let processor = Processor::new(&ctx, metrics(), setup.clone());
    let mut lot = LotTask::new(&ctx, metrics(), setup);
    let mut running = JoinSet::new();
    running.spawn(relay.run(ctx.drain.clone()));
    assert_eq!(lot.make_due().await.unwrap(), 300);
    let streaming = async {
        for round in &behind {
            for batch in round.chunks(11) {
                processor.step(&batch.iter().map(Sent::record).collect::<Vec<_>>(), &[]).await.unwrap();
            }
        }
    };
    let draining = async {
        while shop.count("parked").await > 0 || shop.count("timeline WHERE kind = 'processed'").await < 1_500 {
            lot.make_due().await.unwrap();
            lot.step().await.unwrap();
        }
    };
    futures::join!(streaming, draining);
    let all: Vec<Sent> = held.into_iter().chain(behind.into_iter().flatten()).collect();
    assert_eq!(read_topic(&ctx, &log.topic("processed"), all.len()).await, of_keys(&all));
    ctx.drain.cancel();
    while let Some(ended) = running.join_next().await {
        ended.unwrap().unwrap();
    }
}

/// Reads a topic until it has `count` orders; returns the orders of each key, by their first copy.
async fn read_topic(ctx: &Ctx, topic: &str, count: usize) -> HashMap<Bytes, Vec<OrderId>> {
    let look = async || {
        let (mut orders, mut seen) = (HashMap::<Bytes, Vec<OrderId>>::new(), HashSet::new());
        for record in read(&ctx.brokers, topic).await {
            let id = OrderId::parse(record.headers.get("ce_subject").unwrap()).unwrap();
            if seen.insert(id) {
                orders.entry(record.key.unwrap()).or_default().push(id);
            }
        }
        if seen.len() >= count { Ok(orders) } else { Err(seen.len()) }
    };
    eventually(PATIENCE, &format!("{count} orders are published"), look).await
}
