//! Reads the state of a consumer group.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

/// Returns the partitions of each group member as the brokers report them; empty for a member that waits for some.
pub fn assignments(brokers: &str, group: &str) -> Vec<Vec<i32>> {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let groups = client.fetch_group_list(Some(group), Duration::from_secs(10)).unwrap();
    let members = groups.groups().iter().flat_map(rdkafka::groups::GroupInfo::members);
    members.map(|member| member.assignment().map(partitions).unwrap_or_default()).collect()
}

/// Parses the consumer protocol's assignment of one topic: version, count of topics, name, count of partitions, partitions.
fn partitions(bytes: &[u8]) -> Vec<i32> {
    let number = |at: usize| bytes.get(at..at + 4).map_or(0, |four| i32::from_be_bytes(four.try_into().unwrap()));
    if number(2) == 0 {
        return Vec::new();
    }
    let name = usize::from(u16::from_be_bytes(bytes[6..8].try_into().unwrap()));
    let count = 8 + name;
    (1..=usize::try_from(number(count)).unwrap()).map(|n| number(count + 4 * n)).collect()
}
