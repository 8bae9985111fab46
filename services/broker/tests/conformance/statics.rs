//! What static members may rely on (KIP-345): their names and their assignments survive restarts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use minishop_testkit::fresh_name;
use minishop_testkit::wait::PATIENCE;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaErrorCode;

use super::client::{Topic, config};

/// Counts the rebalances of its consumer.
#[derive(Clone, Default)]
struct Rebalances(Arc<AtomicUsize>);

impl ClientContext for Rebalances {}

impl ConsumerContext for Rebalances {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Member = BaseConsumer<Rebalances>;

fn member(broker: &str, group: &str, topic: &str, strategy: &str, instance: &str) -> Member {
    let consumer: Member = config(broker)
        .set("group.id", group)
        .set("group.instance.id", instance)
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "20000")
        .set("heartbeat.interval.ms", "200")
        .set("partition.assignment.strategy", strategy)
        .create_with_context(Rebalances::default())
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

fn assigned(member: &Member) -> BTreeSet<i32> {
    member.assignment().unwrap().elements().iter().map(TopicPartitionListElem::partition).collect()
}

fn rebalances(member: &Member) -> usize {
    member.context().0.load(Ordering::Relaxed)
}

/// Polls members until `done`; there are no records.
fn poll_until(what: &str, members: &[&Member], mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "still not so: {what}");
        for member in members {
            let came = member.poll(Duration::from_millis(20));
            assert!(came.is_none_or(|came| came.is_ok()), "{what}");
        }
    }
}

/// Restarts both members in turn, so one of them is the leader, and observes the other.
fn comes_back(broker: &str, strategy: &str) {
    let topic = Topic::new(broker, 4);
    let group = fresh_name("group");
    let start = |instance: &str| member(broker, &group, &topic.name, strategy, instance);
    let (mut restarted, mut stays) = (start("one"), start("two"));
    poll_until("each has half", &[&restarted, &stays], || assigned(&restarted).len() == 2 && assigned(&stays).len() == 2);
    for instance in ["one", "two"] {
        let (share, others) = (assigned(&restarted), assigned(&stays));
        let before = rebalances(&stays);
        drop(restarted);
        restarted = start(instance);
        let begun = Instant::now();
        poll_until("it has a share again", &[&restarted, &stays], || !assigned(&restarted).is_empty());
        assert!(begun.elapsed() < Duration::from_secs(10), "{instance} took {:?}", begun.elapsed());
        // Heartbeats continue; they would report a rebalance.
        let watched = Instant::now();
        poll_until("two seconds are over", &[&restarted, &stays], || watched.elapsed() > Duration::from_secs(2));
        assert_eq!(assigned(&restarted), share, "{instance} has another share");
        assert_eq!((assigned(&stays), rebalances(&stays)), (others, before), "the other was disturbed");
        std::mem::swap(&mut restarted, &mut stays);
    }
}

pub fn cooperative(broker: &str) {
    comes_back(broker, "cooperative-sticky");
}

pub fn range(broker: &str) {
    comes_back(broker, "range");
}

pub fn fenced(broker: &str) {
    let topic = Topic::new(broker, 2);
    let group = fresh_name("group");
    let first = member(broker, &group, &topic.name, "cooperative-sticky", "one");
    poll_until("the first has all", &[&first], || assigned(&first).len() == 2);
    let second = member(broker, &group, &topic.name, "cooperative-sticky", "one");
    poll_until("the second has all", &[&second], || assigned(&second).len() == 2);
    let begun = Instant::now();
    let fenced = loop {
        assert!(begun.elapsed() < PATIENCE, "the first was told nothing");
        let _ = first.poll(Duration::from_millis(20));
        if let Some((code, _)) = first.client().fatal_error() {
            break code;
        }
    };
    assert_eq!(fenced, RDKafkaErrorCode::FencedInstanceId);
    assert_eq!(assigned(&second).len(), 2);
}
