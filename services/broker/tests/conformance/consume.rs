//! What the members of a consumer group may rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use minishop_testkit::fresh_name;
use minishop_testkit::wait::PATIENCE;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

use super::client::{Topic, config, number, send_numbers};

/// A member that sends heartbeats often, so that it notices a rebalance soon.
fn member(broker: &str, group: &str, topic: &str, strategy: &str) -> BaseConsumer {
    let consumer: BaseConsumer = config(broker)
        .set("group.id", group)
        .set("client.id", fresh_name("member"))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "200")
        .set("partition.assignment.strategy", strategy)
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

fn assigned(member: &BaseConsumer) -> BTreeSet<i32> {
    member.assignment().unwrap().elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect()
}

/// Polls all members, committing what they read, until `done`.
fn poll_until(
    what: &str,
    members: &[&BaseConsumer],
    seen: &mut BTreeMap<usize, usize>,
    mut done: impl FnMut(&BTreeMap<usize, usize>) -> bool,
) {
    let begun = Instant::now();
    while !done(seen) {
        assert!(begun.elapsed() < PATIENCE, "still not so: {what}");
        for member in members {
            if let Some(message) = member.poll(Duration::from_millis(20)) {
                let message = message.unwrap();
                *seen.entry(number(&message)).or_default() += 1;
                // During a rebalance the commit may be refused; the record is then delivered again.
                let _ = member.commit_message(&message, CommitMode::Sync);
            }
        }
    }
}

/// One member, then two, then one again; every record is read.
fn share(broker: &str, strategy: &str) {
    const COUNT: usize = 300;
    let topic = Topic::new(broker, 4);
    let group = fresh_name("group");
    let all: BTreeSet<i32> = (0..4).collect();
    let mut seen = BTreeMap::new();

    let first = member(broker, &group, &topic.name, strategy);
    poll_until("the first has all", &[&first], &mut seen, |_| assigned(&first) == all);
    send_numbers(broker, &topic.name, COUNT);
    poll_until("the first has read all", &[&first], &mut seen, |seen| seen.len() == COUNT);
    assert!(seen.values().all(|count| *count == 1), "a record came twice");

    let second = member(broker, &group, &topic.name, strategy);
    let both = [&first, &second];
    poll_until("each has half", &both, &mut seen, |_| {
        let (a, b) = (assigned(&first), assigned(&second));
        a.len() == 2 && b.len() == 2 && a.is_disjoint(&b)
    });
    assert!(seen.values().all(|count| *count == 1), "what was committed came again after the rebalance");
    seen.clear();
    send_numbers(broker, &topic.name, COUNT);
    poll_until("both have read all", &both, &mut seen, |seen| seen.len() == COUNT);
    assert!(seen.values().all(|count| *count == 1), "both read the same record");

    drop(second);
    poll_until("the first has all again", &[&first], &mut seen, |_| assigned(&first) == all);
    seen.clear();
    send_numbers(broker, &topic.name, COUNT);
    poll_until("the first reads all again", &[&first], &mut seen, |seen| seen.len() == COUNT);
}

pub fn cooperative(broker: &str) {
    share(broker, "cooperative-sticky");
}

pub fn range(broker: &str) {
    share(broker, "range");
}

pub fn committed(broker: &str) {
    let topic = Topic::new(broker, 1);
    let group = fresh_name("group");
    send_numbers(broker, &topic.name, 100);
    let first = member(broker, &group, &topic.name, "range");
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "nothing was read");
        let Some(message) = first.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        if message.offset() == 41 {
            first.commit_message(&message, CommitMode::Sync).unwrap();
            break;
        }
    }
    drop(first);

    let second = member(broker, &group, &topic.name, "range");
    let begun = Instant::now();
    let next = loop {
        assert!(begun.elapsed() < PATIENCE, "nothing was read");
        if let Some(message) = second.poll(Duration::from_millis(100)) {
            break message.unwrap().offset();
        }
    };
    assert_eq!(next, 42, "the next member goes on behind the committed record");
    let committed = second.committed(PATIENCE).unwrap();
    assert_eq!(committed.elements()[0].offset(), rdkafka::Offset::Offset(42));
    let other: BaseConsumer = config(broker).set("group.id", fresh_name("other")).create().unwrap();
    let none = other.committed_offsets(second.assignment().unwrap(), PATIENCE).unwrap();
    assert_eq!(none.elements()[0].offset(), rdkafka::Offset::Invalid, "another group has nothing committed");
}

pub fn replaced(broker: &str) {
    let topic = Topic::new(broker, 2);
    let group = fresh_name("group");
    let mut seen = BTreeMap::new();
    let first = member(broker, &group, &topic.name, "cooperative-sticky");
    poll_until("the first has all", &[&first], &mut seen, |_| assigned(&first).len() == 2);
    drop(first);
    // The first left, so the second need not wait for its session timeout of 6 s.
    let begun = Instant::now();
    let second = member(broker, &group, &topic.name, "cooperative-sticky");
    poll_until("the second has all", &[&second], &mut seen, |_| assigned(&second).len() == 2);
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
}
