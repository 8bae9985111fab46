//! Records and topics that the event log refuses.

use std::collections::{BTreeMap, BTreeSet};

use minishop_broker::TopicSettings;
use minishop_store::shard_of;
use minishop_store::{Missing, NewEvent, Role, Unpublished};
use minishop_testkit::lot::requested_by;
use minishop_testkit::rows::now;
use minishop_testkit::wait::{PATIENCE, becomes, eventually};

use crate::world::{Log, Running, TOPIC, World, emptied, event, number, sized};

const SMALL: u32 = 20_000;
const DEAD_LETTERS: &str = "orders.created.dlq";

async fn published(log: &Log, topic: &str) -> Vec<usize> {
    log.records(topic).await.iter().map(number).collect()
}

/// Returns what was published, without copies.
async fn firsts(log: &Log, topic: &str) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    published(log, topic).await.into_iter().filter(|n| seen.insert(*n)).collect()
}

/// Returns a key of another shard.
fn another_key(key: &str) -> String {
    let shard = |key: &str| shard_of(Role::Api, key.as_bytes());
    (2..99).map(|n| format!("c{n}")).find(|other| shard(other) != shard(key)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_too_large_for_its_topic_is_set_aside_and_later_ones_go_on() {
    let world = World::new().await;
    let log = Log::start_without_topics().await;
    log.topic(TOPIC, SMALL).await;
    let large = [7, 8, 30];
    let of = |n| if large.contains(&n) { sized("c1", n, 100_000) } else { event("c1", n) };
    let events: Vec<_> = (0..40).map(of).collect();
    world.commit(&events[..20]).await;
    let running = Running::start(&world, log.addr);
    running.relay.hand_over(world.commit(&events[20..]).await);
    emptied(&world).await;
    let rest: Vec<_> = (0..40).filter(|n| !large.contains(n)).collect();
    assert_eq!(published(&log, TOPIC).await, rest, "each once and in its order");
    assert_eq!((world.count("outbox_set_aside").await, running.metric("outbox_set_aside_total")), (3, 3));
    let kept = "outbox_set_aside WHERE reason = 'the record is too large' AND length(payload) = 100000";
    assert_eq!(world.count(kept).await, 3, "nothing of it is lost");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_too_large_only_together_are_published() {
    let world = World::new().await;
    let log = Log::start_without_topics().await;
    log.topic(TOPIC, SMALL).await;
    world.commit(&(0..100).map(|n| sized("c1", n, 2_000)).collect::<Vec<_>>()).await;
    let running = Running::start(&world, log.addr);
    emptied(&world).await;
    assert_eq!(world.count("outbox_set_aside").await, 0);
    assert_eq!(published(&log, TOPIC).await, (0..100).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_was_set_aside_before_is_passed_over() {
    let world = World::new().await;
    let rows = world.commit_numbered("c1", 0..10).await;
    for row in &rows[3..5] {
        let aside = world.store.operations.set_row_aside(row.event.shard, row.number, row.event.event_id, "by hand").await;
        assert!(aside.unwrap());
    }
    let log = Log::start().await;
    let running = Running::start(&world, log.addr);
    emptied(&world).await;
    assert_eq!(published(&log, TOPIC).await, [0, 1, 2, 5, 6, 7, 8, 9]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_too_large_goes_without_its_value() {
    let world = World::new().await;
    let log = Log::start_without_topics().await;
    log.topic(DEAD_LETTERS, SMALL).await;
    let letter = |n, bytes| NewEvent { topic: DEAD_LETTERS.to_owned(), ..sized("c1", n, bytes) };
    let events: Vec<_> = (0..20).map(|n| letter(n, if n == 4 { 400_000 } else { 160 })).collect();
    world.commit(&events).await;
    let running = Running::start(&world, log.addr);
    emptied(&world).await;
    let mut first = BTreeMap::new();
    let records = log.records(DEAD_LETTERS).await;
    for record in &records {
        first.entry(number(record)).or_insert(record);
    }
    assert_eq!(records.iter().map(number).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    for (n, record) in first {
        let omitted = record.headers.get("dlq-value-omitted");
        let wanted = events[n].payload.clone().filter(|_| n != 4);
        assert_eq!((omitted, &record.value), ((n == 4).then_some("400000"), &wanted), "{n}");
    }
    assert_eq!(world.count("outbox_set_aside").await, 0, "the lot keeps its bytes");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_missing_lets_its_shard_wait_and_no_other() {
    const MISSING: &str = "orders.missing";
    let world = World::new().await;
    let log = Log::start().await;
    let other = another_key("c1");
    let running = Running::start(&world, log.addr);
    let missing = |n| NewEvent { topic: MISSING.to_owned(), ..event("c1", n) };
    running.relay.hand_over(world.commit(&(0..25).map(missing).collect::<Vec<_>>()).await);
    running.relay.hand_over(world.commit_numbered(&other, 0..10).await);
    becomes("rows that wait", async || world.waiting().await, 25).await;
    let note = eventually(PATIENCE, "a note is made", async || running.note()).await;
    assert!(note.contains(MISSING), "{note}");
    // Rows committed meanwhile come after them.
    running.relay.hand_over(world.commit(&(25..50).map(missing).collect::<Vec<_>>()).await);
    running.relay.hand_over(world.commit_numbered(&other, 10..20).await);
    becomes("rows that wait", async || world.waiting().await, 50).await;
    log.topic(MISSING, TopicSettings::default().max_message_bytes).await;
    emptied(&world).await;
    assert_eq!(published(&log, MISSING).await, (0..50).collect::<Vec<_>>());
    assert_eq!(published(&log, TOPIC).await, (0..20).collect::<Vec<_>>());
    becomes("the note", async || running.note(), None).await;
    assert_eq!(running.metric("outbox_set_aside_total"), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_wait_for_a_missing_topic_are_set_aside_and_their_shard_goes_on() {
    const MISSING: &str = "orders.missing";
    let world = World::new().await;
    let log = Log::start().await;
    let missing = |n| NewEvent { topic: MISSING.to_owned(), ..event("c1", n) };
    world.commit(&(0..30).map(missing).collect::<Vec<_>>()).await;
    world.commit_numbered("c1", 30..40).await;
    let running = Running::start(&world, log.addr);
    eventually(PATIENCE, "a note is made", async || running.note()).await;
    assert_eq!(world.waiting().await, 40);
    let which = Unpublished::Topic(MISSING.to_owned());
    assert_eq!(world.store.operations.set_aside(&which, &requested_by("they are lost"), now()).await.unwrap(), 30);
    emptied(&world).await;
    assert_eq!(firsts(&log, TOPIC).await, (30..40).collect::<Vec<_>>());
    assert_eq!(world.count("outbox_set_aside").await, 30);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_lacks_a_number_waits_until_it_is_stepped_over_and_no_other() {
    let world = World::new().await;
    let log = Log::start().await;
    let (of, other) = (shard_of(Role::Api, b"c1"), another_key("c1"));
    world.commit_numbered("c1", 0..20).await;
    world.commit_numbered(&other, 100..110).await;
    world.sql("DELETE FROM outbox_event WHERE number IN (5, 6) AND order_version IS NULL AND record_key = x'6331'").await;
    let running = Running::start(&world, log.addr);
    let alarm = eventually(PATIENCE, "an alarm is raised", async || running.fault("outbox")).await;
    eventually(PATIENCE, "the other shard is published", async || published(&log, TOPIC).await.contains(&109)).await;
    assert!(alarm.starts_with(&format!("outbox_gap: shard {of} lacks numbers 5 to 6")), "{alarm}");
    assert_eq!((running.metric("outbox_gaps_total"), world.waiting().await), (1, 20));
    running.relay.hand_over(world.commit_numbered("c1", 20..25).await);
    let done = world.store.operations.step_over(of, 5, &requested_by("they are lost"), now()).await.unwrap();
    assert_eq!(done, Missing::SteppedOver(5, 6));
    emptied(&world).await;
    let ours: Vec<_> = published(&log, TOPIC).await.into_iter().filter(|n| *n < 100).collect();
    assert_eq!(ours, (0..25).filter(|n| ![4, 5].contains(n)).collect::<Vec<_>>(), "in their order, but what is lost");
    becomes("the alarm", async || running.fault("outbox"), None).await;
    assert_eq!(running.metric("outbox_gaps_total"), 1, "the alarm is raised once");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_behind_a_failed_batch_is_not_published_before_it() {
    let world = World::new().await;
    let log = Log::start_without_topics().await;
    log.topic(TOPIC, 200_000).await;
    let running = Running::start(&world, log.addr);
    let large = 105;
    for start in (0..600).step_by(20) {
        // Each commit fits into one batch, and no two of them do.
        let of = |n| sized("c1", n, if n == large { 250_000 } else { 6_000 });
        running.relay.hand_over(world.commit(&(start..start + 20).map(of).collect::<Vec<_>>()).await);
    }
    emptied(&world).await;
    assert_eq!(firsts(&log, TOPIC).await, (0..600).filter(|n| *n != large).collect::<Vec<_>>());
    assert_eq!(world.count("outbox_set_aside").await, 1);
    running.stop().await;
}
