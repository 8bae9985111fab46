//! What admin tools may rely on.

use std::time::Duration;

use minishop_testkit::blocking::{block_on, eventually};
use minishop_testkit::fresh_name;
use minishop_testkit::wait::PATIENCE;
use rdkafka::admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use super::client::{Topic, admin, bounds, config, create, partition_count, producer, send, send_numbers};

fn delete(broker: &str, name: &str) -> Result<(), RDKafkaErrorCode> {
    let mut results = block_on(admin(broker).delete_topics(&[name], &AdminOptions::new())).unwrap();
    results.remove(0).map(drop).map_err(|(_, code)| code)
}

pub fn topics(broker: &str) {
    let name = fresh_name("made");
    let new = |name, partitions| NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let wanted = new(&name, 3).set("retention.ms", "3600000").set("max.message.bytes", "2000000");
    create(broker, &wanted).unwrap();
    eventually(PATIENCE, "it is there", || partition_count(broker, &name) == Some(3));
    assert_eq!(create(broker, &wanted), Err(RDKafkaErrorCode::TopicAlreadyExists));

    let options = AdminOptions::new();
    let specifiers = [ResourceSpecifier::Topic(&name)];
    let described = block_on(admin(broker).describe_configs(&specifiers, &options)).unwrap().remove(0).unwrap();
    let value = |entry: &str| described.get(entry).and_then(|entry| entry.value.clone());
    assert_eq!(value("retention.ms").as_deref(), Some("3600000"));
    assert_eq!(value("max.message.bytes").as_deref(), Some("2000000"));
    assert_eq!(value("cleanup.policy").as_deref(), Some("delete"));

    let refused = [
        (new("a b", 1), RDKafkaErrorCode::InvalidTopic),
        (new("..", 1), RDKafkaErrorCode::InvalidTopic),
        (NewTopic::new("unmade", 1, TopicReplication::Fixed(2)), RDKafkaErrorCode::InvalidReplicationFactor),
        (new("unmade", 1).set("no.such.setting", "1"), RDKafkaErrorCode::InvalidConfig),
    ];
    for (topic, code) in refused {
        assert_eq!(create(broker, &topic), Err(code), "{}", topic.name);
    }

    delete(broker, &name).unwrap();
    eventually(PATIENCE, "it is gone", || partition_count(broker, &name).is_none());
    assert_eq!(delete(broker, &name), Err(RDKafkaErrorCode::UnknownTopicOrPartition));
}

pub fn made_again(broker: &str) {
    let name = fresh_name("again");
    let wanted = NewTopic::new(&name, 1, TopicReplication::Fixed(1));
    for _ in 0..2 {
        create(broker, &wanted).unwrap();
        eventually(PATIENCE, "it is there", || partition_count(broker, &name) == Some(1));
        assert_eq!(bounds(broker, &name, 0), (0, 0), "a new topic has old records");
        send_numbers(broker, &name, 10);
        assert_eq!(bounds(broker, &name, 0), (0, 10));
        delete(broker, &name).unwrap();
        eventually(PATIENCE, "it is gone", || partition_count(broker, &name).is_none());
    }
}

pub fn all_topics(broker: &str) {
    let made = [Topic::new(broker, 1), Topic::new(broker, 3)];
    let consumer: BaseConsumer = config(broker).create().unwrap();
    let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
    let found = |name: &str| metadata.topics().iter().find(|topic| topic.name() == name).map(|topic| topic.partitions().len());
    assert_eq!(made.each_ref().map(|topic| found(&topic.name)), [Some(1), Some(3)]);
    assert_eq!(found(&fresh_name("never-made")), None);
    // The connection still works.
    assert_eq!(consumer.fetch_metadata(Some(&made[0].name), PATIENCE).unwrap().topics().len(), 1);
}

pub fn offsets(broker: &str) {
    let topic = Topic::new(broker, 1);
    let producer = producer(broker, &[("linger.ms", "0")]);
    for n in 0..5 {
        let record = BaseRecord::with_opaque_to(&topic.name, Box::new(n)).key("k").payload("v");
        send(&producer, record.timestamp(1_700_000_000_000 + i64::try_from(n).unwrap() * 1_000));
        // One batch for each record, so that a search finds exactly its record.
        producer.flush(PATIENCE).unwrap();
    }
    let consumer: BaseConsumer = config(broker).create().unwrap();
    let at = |timestamp: i64| {
        let mut ask = TopicPartitionList::new();
        ask.add_partition_offset(&topic.name, 0, Offset::Offset(timestamp)).unwrap();
        consumer.offsets_for_times(ask, PATIENCE).unwrap().elements()[0].offset()
    };
    assert_eq!(at(0), Offset::Offset(0));
    assert_eq!(at(1_700_000_001_001), Offset::Offset(2));
    assert_eq!(at(1_700_000_004_000), Offset::Offset(4));
    assert_eq!(at(1_700_000_004_001), Offset::End);

    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic.name, 0, Offset::Offset(3)).unwrap();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    block_on(admin(broker).delete_records(&before, &options)).unwrap();
    eventually(PATIENCE, "the first three are gone", || bounds(broker, &topic.name, 0) == (3, 5));
}

pub fn groups(broker: &str) {
    let topic = Topic::new(broker, 1);
    let group = fresh_name("group");
    let delete = || {
        let mut results = block_on(admin(broker).delete_groups(&[&group], &AdminOptions::new())).unwrap();
        results.remove(0).map(drop).map_err(|(_, code)| code)
    };
    assert_eq!(delete(), Err(RDKafkaErrorCode::GroupIdNotFound));
    let member: BaseConsumer = config(broker)
        .set("group.id", &group)
        .set("session.timeout.ms", "6000")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    member.subscribe(&[&topic.name]).unwrap();
    eventually(PATIENCE, "it has its partition", || {
        let _ = member.poll(Duration::from_millis(20));
        member.assignment().unwrap().count() == 1
    });
    let mut reached = TopicPartitionList::new();
    reached.add_partition_offset(&topic.name, 0, Offset::Offset(0)).unwrap();
    member.commit(&reached, CommitMode::Sync).unwrap();
    assert_eq!(delete(), Err(RDKafkaErrorCode::NonEmptyGroup));
    drop(member);
    eventually(PATIENCE, "it is deleted", || delete() == Ok(()));
    assert_eq!(delete(), Err(RDKafkaErrorCode::GroupIdNotFound));
}

pub fn usual_count(broker: &str) {
    let name = fresh_name("usual");
    create(broker, &NewTopic::new(&name, -1, TopicReplication::Fixed(-1))).unwrap();
    eventually(PATIENCE, "it is there", || partition_count(broker, &name).is_some());
    let consumer: BaseConsumer = config(broker).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(&name), PATIENCE).unwrap();
    let specifiers = [ResourceSpecifier::Broker(metadata.brokers()[0].id())];
    let described = block_on(admin(broker).describe_configs(&specifiers, &AdminOptions::new())).unwrap().remove(0).unwrap();
    let usual = described.get("num.partitions").and_then(|entry| entry.value.clone()).unwrap();
    assert_eq!(partition_count(broker, &name).unwrap().to_string(), usual);
    delete(broker, &name).unwrap();
}
