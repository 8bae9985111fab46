//! What was published to a topic.

use std::time::Duration;

use minishop_bus::consume::{Start, Tail};
use minishop_bus::{Record, topics};
use serde_json::Value;

use crate::blocking::eventually;
use crate::fresh_prefix;
use crate::wait::PATIENCE;

/// Creates MiniShop's topics under a prefix of their own, which it returns.
pub async fn fresh_topics(brokers: &str, partitions: i32) -> String {
    let prefix = fresh_prefix("test");
    topics::create(brokers, &prefix, partitions, Duration::from_secs(30)).await.unwrap();
    prefix
}

/// Reads all records of a topic, in order per partition. Blocks.
pub fn records(brokers: &str, topic: &str) -> Vec<Record> {
    // A new topic has no leaders at first.
    let open = || Tail::open(brokers, &[topic.to_owned()], Start::Beginning).map_err(|error| error.to_string());
    let tail = eventually(Duration::from_secs(20), "the topic can be read", open);
    tail.rest(PATIENCE).unwrap()
}

/// Reads all events of a topic, in order per partition. Blocks.
pub fn events(brokers: &str, topic: &str) -> Vec<Value> {
    let records = records(brokers, topic);
    records.iter().map(|record| serde_json::from_slice(record.value.as_deref().unwrap()).unwrap()).collect()
}

/// Reads all records of a topic from inside a runtime.
pub async fn read(brokers: &str, topic: &str) -> Vec<Record> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || records(&brokers, &topic)).await.unwrap()
}
