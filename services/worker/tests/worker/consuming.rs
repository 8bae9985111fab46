//! Whole workers on an event log: groups, offsets, restores and outages.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use minishop_bus::{Headers, Record, topics};
use minishop_core::ids::OrderId;
use minishop_core::operation::Kind;
use minishop_platform::ctx::{Ctx, Metrics};
use minishop_store::Store;
use minishop_testkit::database::Engine;
use minishop_testkit::metrics::{metric, sample};
use minishop_testkit::topics::read;
use minishop_testkit::wait::{PATIENCE, becomes, eventually};
use minishop_worker::WorkerShared;
use minishop_worker::handlers::HandlerPlace;
use minishop_worker::upcast::Versions;
use tokio::task::JoinSet;

use crate::log::{Log, PARTITIONS, log};
use crate::records::{Sent, created, record};
use crate::redriving::begin_on;
use crate::shop::{self, Shop};

pub async fn the_brokers_tell_what_becomes_of_a_topics_records(shop: Shop) {
    let log = log(&shop).await;
    let (created, dead) = (log.topic("created"), log.topic("created.dlq"));
    let settings = topics::settings(&log.brokers, &[&dead, &created], Duration::from_secs(10)).await.unwrap();
    let week = Some(Duration::from_hours(7 * 24));
    assert!(
        settings.iter().all(|topic| topic.retention == week && !topic.compacted && topic.largest >= 1_000_000),
        "{settings:?}"
    );
    let unknown = topics::settings(&log.brokers, &[&created, "no.such.topic"], Duration::from_secs(10)).await;
    assert!(unknown.is_err(), "{unknown:?}");
}

/// A worker with its relay.
pub struct Worker {
    topic: String,
    ctx: Ctx,
    metrics: Metrics,
    tasks: JoinSet<anyhow::Result<()>>,
}

pub fn worker(store: &Store, log: &Log, owner: &str) -> Worker {
    worker_with(store, log, owner, WorkerShared::new(HandlerPlace::Stream, Versions::current()))
}

pub fn worker_with(store: &Store, log: &Log, owner: &str, worker: WorkerShared) -> Worker {
    let (ctx, relay) = shop::ctx(store, &log.brokers, owner, &log.prefix);
    let mut tasks = JoinSet::new();
    for task in minishop_worker::start_with(ctx.clone(), worker) {
        tasks.spawn(task.run);
    }
    tasks.spawn(relay.run(ctx.drain.clone()));
    Worker { topic: log.topic("created"), metrics: ctx.metrics.clone(), ctx, tasks }
}

impl Worker {
    /// Drains the worker, and waits until all its tasks have ended well.
    pub async fn drain(mut self) {
        self.ctx.drain.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }

    /// Returns the lag of a partition, if this worker reads it.
    fn lag(&self, partition: i32) -> Option<u64> {
        self.partition_metric("worker_consumer_lag_records", partition)
    }

    /// Returns a metric of a partition.
    pub fn partition_metric(&self, name: &str, partition: i32) -> Option<u64> {
        sample(&self.metrics, &format!("{name}{{topic=\"{}\",partition=\"{partition}\"}}", self.topic))
    }

    /// Counts the partitions that this worker reads.
    pub fn partitions(&self) -> usize {
        (0..PARTITIONS).filter(|n| self.lag(*n).is_some()).count()
    }

    /// Returns the status note of a part.
    pub fn note(&self, part: &str) -> Option<String> {
        self.ctx.status.notes().into_iter().find_map(|(name, note)| (name == part).then_some(note))
    }

    pub fn metric(&self, name: &str) -> u64 {
        metric(&self.metrics, name)
    }

    fn events(&self, outcome: &str) -> u64 {
        metric(&self.metrics, &format!("worker_events_total{{outcome=\"{outcome}\"}}"))
    }
}

pub async fn until_processed(shop: &Shop, count: i64) {
    becomes("processed orders", async || shop.count("orders WHERE status = 'processed'").await, count).await;
}

fn events(count: usize) -> Vec<Sent> {
    (0..count).map(|_| created()).collect()
}

pub async fn settled_records_are_committed_and_not_read_again(shop: Shop) {
    let log = log(&shop).await;
    log.send_events(&events(300)).await;
    log.send(&(0..10).map(|_| record(Some(b"garbage"))).collect::<Vec<_>>()).await;
    let first = worker(&shop.store, &log, "first");
    until_processed(&shop, 300).await;
    becomes("dead letters", async || shop.parked().await.len(), 10).await;
    // By itself, without a drain.
    log.is_committed_to_its_end().await;
    let lag = async || (0..PARTITIONS).map(|n| first.lag(n).unwrap_or(1)).sum::<u64>();
    becomes("the lag", lag, 0).await;
    log.send_events(&events(50)).await;
    until_processed(&shop, 350).await;
    first.drain().await;
    let (ends, offsets) = log.ends_and_offsets().await;
    assert_eq!(ends, offsets, "the drain commits the rest");
    assert_eq!(ends.iter().sum::<i64>(), 360);
    let second = worker(&shop.store, &log, "second");
    log.send_events(&events(1)).await;
    until_processed(&shop, 351).await;
    becomes("processed events", async || second.events("processed"), 1).await;
    assert_eq!(second.events("copy"), 0);
    second.drain().await;
}

pub async fn a_store_older_than_its_group_is_read_again_from_where_it_stands(shop: Shop) {
    let log = log(&shop).await;
    log.send_events(&events(100)).await;
    let before = worker(&shop.store, &log, "before");
    until_processed(&shop, 100).await;
    before.drain().await;
    let kept = shop.rows::<(i32, i64)>("SELECT partition, next_offset FROM consumed ORDER BY partition").await;
    assert_eq!(kept.len(), 4, "keys spread over all partitions");
    // The backup was taken before partition 0 was read to its end, and before anything else was read.
    for table in ["orders", "inbox", "timeline", "outbox_event", "consumed WHERE partition > 0"] {
        shop.sql(&format!("DELETE FROM {table}")).await;
    }
    shop.sql("UPDATE consumed SET next_offset = 1").await;
    let after = worker(&shop.store, &log, "after");
    // All but the one record that the backup says was settled.
    until_processed(&shop, 99).await;
    assert_eq!(metric(&after.metrics, "worker_store_behind_group_total"), 4);
    assert_eq!(metric(&after.metrics, "worker_records_lost_to_retention_total"), 0);
    after.drain().await;
    let third = worker(&shop.store, &log, "third");
    log.send_events(&events(20)).await;
    until_processed(&shop, 119).await;
    assert_eq!(metric(&third.metrics, "worker_store_behind_group_total"), 0, "it has caught up");
    third.drain().await;
}

pub async fn what_retention_dropped_unread_is_told_and_the_rest_is_processed(shop: Shop) {
    let log = log(&shop).await;
    log.send_events(&events(40)).await;
    let before = worker(&shop.store, &log, "before");
    until_processed(&shop, 40).await;
    before.drain().await;
    let (_, offsets) = log.ends_and_offsets().await;
    log.send_events(&events(80)).await;
    log.retain(2).await;
    let (ends, _) = log.ends_and_offsets().await;
    let lost: i64 = ends.iter().zip(&offsets).map(|(end, offset)| end - 2 - offset).sum();
    let after = worker(&shop.store, &log, "after");
    until_processed(&shop, 40 + 8).await;
    assert_eq!(metric(&after.metrics, "worker_records_lost_to_retention_total"), u64::try_from(lost).unwrap());
    assert_eq!(metric(&after.metrics, "worker_store_behind_group_total"), 0);
    after.drain().await;
}

pub async fn while_the_store_is_away_everything_waits_and_nothing_is_dead(shop: Shop) {
    let log = log(&shop).await;
    let worker = worker(&shop.store, &log, "worker");
    log.send_events(&events(10)).await;
    until_processed(&shop, 10).await;
    shop.sql("ALTER TABLE timeline RENAME TO away").await;
    // More than the queue holds, so that the partitions are paused.
    log.send_events(&events(4_000)).await;
    let state = || worker.ctx.status.parts().into_iter().find(|(part, _)| *part == "worker").unwrap().1;
    becomes("an alarm", async || state().is_err(), true).await;
    assert_eq!((shop.count("orders").await, shop.count("parked").await), (10, 0));
    shop.sql("ALTER TABLE away RENAME TO timeline").await;
    until_processed(&shop, 4_010).await;
    becomes("an alarm", async || state().is_err(), false).await;
    becomes("processed events", async || worker.events("processed"), 4_010).await;
    assert_eq!((worker.events("dead"), shop.count("parked").await), (0, 0));
    worker.drain().await;
}

pub async fn a_partition_that_went_while_it_was_paused_is_read_when_it_comes_back(shop: Shop) {
    let log = log(&shop).await;
    let first = worker(&shop.store, &log, "first");
    log.send_events(&events(10)).await;
    until_processed(&shop, 10).await;
    shop.sql("ALTER TABLE timeline RENAME TO away").await;
    log.send_events(&events(4_000)).await;
    becomes("paused", async || first.metric("worker_reading_paused"), 1).await;
    let second = worker(&shop.store, &log, "second");
    becomes("partitions of each", async || (first.partitions(), second.partitions()), (2, 2)).await;
    shop.sql("ALTER TABLE away RENAME TO timeline").await;
    until_processed(&shop, 4_010).await;
    second.drain().await;
    log.send_events(&events(100)).await;
    until_processed(&shop, 4_110).await;
    first.drain().await;
}

pub async fn a_dead_letter_is_published_as_its_record_came(shop: Shop) {
    let log = log(&shop).await;
    let keyed = |key: &'static [u8]| Record { key: Some(Bytes::from_static(key)), ..record(Some(b"no event")) };
    // The header makes the producer send a null key.
    let keyless = Record { headers: Headers::default().with("dlq-key-null", "true"), ..keyed(b"") };
    let empty = Record { value: Some(Bytes::new()), ..keyed(b"c") };
    let null = Record { value: None, ..keyed(b"d") };
    let sent = [keyless, keyed(b""), keyed(b"\xff\x00"), empty, null];
    log.send(&sent).await;
    let worker = worker(&shop.store, &log, "worker");
    let dead_letters = log.topic("created.dlq");
    let waiting = async || (shop.parked().await.len(), shop.published(&dead_letters).await.len());
    becomes("dead letters in the store, and those to be published", waiting, (5, 0)).await;
    worker.drain().await;
    let letters = read(&log.brokers, &dead_letters).await;
    let all = |records: &[Record]| records.iter().map(|r| (r.key.clone(), r.value.clone())).collect::<HashSet<_>>();
    let mut expected = all(&sent[1..]);
    expected.insert((None, sent[0].value.clone()));
    assert_eq!((letters.len(), all(&letters)), (5, expected), "null keys and values are null, empty ones empty");
}

pub async fn dead_letters_that_are_produced_to_the_topic_make_no_others(shop: Shop) {
    let log = log(&shop).await;
    let worker = worker(&shop.store, &log, "worker");
    log.send(&[record(Some(b"no event")), created().with("/data/total", 22).record(), record(None)]).await;
    let dead_letters = log.topic("created.dlq");
    let letters = async || read(&log.brokers, &dead_letters).await;
    becomes("published dead letters", async || letters().await.len(), 3).await;
    // With their headers, as a tool that copies records does.
    log.send(&letters().await).await;
    log.send_events(&[created()]).await;
    until_processed(&shop, 1).await;
    becomes("copies", async || worker.events("copy"), 3).await;
    worker.drain().await;
    assert_eq!((shop.parked().await.len(), letters().await.len()), (3, 3));
}

pub async fn what_operators_did_long_ago_is_forgotten(shop: Shop) {
    let log = log(&shop).await;
    let (long_ago, now) = if shop.is_distributed() { ("to_timestamp(0)", "clock_timestamp()") } else { ("0", "1760000000000") };
    // Over no dead letters, so done at once.
    begin_on(&shop.store.operations, Kind::Redrive, 100).await;
    shop.sql(&format!("UPDATE operation SET ended_at = {long_ago}")).await;
    shop.sql(&format!("UPDATE audit SET at = {long_ago}")).await;
    begin_on(&shop.store.operations, Kind::Redrive, 100).await;
    shop.sql(&format!("UPDATE audit SET at = {now} WHERE at > {long_ago}")).await;
    let worker = worker(&shop.store, &log, "worker");
    let left = async || (shop.count("operation").await, shop.count("audit").await);
    becomes("operations and audit that are left", left, (1, 1)).await;
    assert_eq!(worker.metric("worker_operations_deleted_total"), 2);
    worker.drain().await;
}

pub async fn workers_that_come_and_go_settle_each_event_once(shop: Shop) {
    let log = log(&shop).await;
    let all = events(1_200);
    let first = worker(&shop.store, &log, "first");
    log.send_events(&all[..400]).await;
    until_processed(&shop, 400).await;
    let second = worker(&shop.store, &log, "second");
    log.send_events(&all[400..800]).await;
    // Both own some of the partitions.
    let mut sent = 800;
    while second.events("processed") == 0 {
        log.send_events(&[created()]).await;
        sent += 1;
        let settled = async || first.events("processed") + second.events("processed") >= sent;
        eventually(PATIENCE, "all are processed", settled).await;
    }
    first.drain().await;
    log.send_events(&all[800..]).await;
    sent += 400;
    until_processed(&shop, i64::try_from(sent).unwrap()).await;
    second.drain().await;
    let published = shop.count("timeline WHERE kind = 'processed'").await;
    assert_eq!((published, shop.count("parked").await), (i64::try_from(sent).unwrap(), 0));
    let ids: HashSet<OrderId> = all.iter().map(Sent::order_id).collect();
    for id in ids {
        assert_eq!(shop.order(id).await.unwrap().version, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cuts_its_connections_loses_and_doubles_nothing() {
    shop::on(Engine::Postgres, async |shop: Shop| {
        let log = log(&shop).await;
        log.send_events(&events(6_000)).await;
        let worker = worker(&shop.store, &log, "worker");
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        while shop.count("orders WHERE status = 'processed'").await < 6_000 {
            assert!(tokio::time::Instant::now() < deadline, "between two cuts something is settled");
            shop.cut_stores().await;
            tick.tick().await;
        }
        let processed = log.topic("processed");
        becomes("events to be published", async || shop.published(&processed).await.len(), 0).await;
        worker.drain().await;
        assert_eq!((shop.count("timeline WHERE kind = 'processed'").await, shop.count("parked").await), (6_000, 0));
        let published = read(&log.brokers, &processed).await;
        let told: HashSet<_> = published.iter().filter_map(|record| record.headers.get("ce_subject")).collect();
        let ids: HashSet<_> = published.iter().filter_map(|record| record.headers.get("ce_id")).collect();
        assert_eq!((told.len(), ids.len()), (6_000, 6_000), "each order is told of under one id");
    })
    .await;
}
