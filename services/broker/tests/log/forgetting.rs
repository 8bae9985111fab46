//! Deletion of groups and their positions.

use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::{DeleteGroupsRequest, OffsetDeleteRequest};
use tempfile::tempdir;

use super::bad_groups::{alone, commit_alone, committed, group};
use super::fixture::Log;
use super::raw::{Raw, topic_name};

async fn delete(raw: &mut Raw, names: &[&str]) -> Vec<i16> {
    let request = DeleteGroupsRequest::default().with_groups_names(names.iter().map(|name| group(name)).collect());
    raw.call(2, &request).await.results.iter().map(|result| result.error_code).collect()
}

/// Returns the code for the group as a whole, and those of its partitions.
async fn delete_offsets(raw: &mut Raw, name: &str, topic: &str, partitions: &[i32]) -> (i16, Vec<i16>) {
    let partition = |index: &i32| OffsetDeleteRequestPartition::default().with_partition_index(*index);
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(partitions.iter().map(partition).collect());
    let request = OffsetDeleteRequest::default().with_group_id(group(name)).with_topics(vec![topic]);
    let answer = raw.call(0, &request).await;
    (answer.error_code, answer.topics.iter().flat_map(|topic| &topic.partitions).map(|p| p.error_code).collect())
}

#[tokio::test]
async fn a_group_without_members_is_forgotten() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    commit_alone(&mut raw, "old", 0, 5).await;
    commit_alone(&mut raw, "other", 0, 7).await;
    alone(&mut raw, "live").await;
    assert_eq!(delete(&mut raw, &["old", "live", "nobody", ""]).await, [0, 68, 69, 24]);
    assert_eq!(committed(&mut raw, "old", 0).await, -1);
    assert_eq!(committed(&mut raw, "other", 0).await, 7);
    assert_eq!(delete(&mut raw, &["old"]).await, [69]);
    log.stop().await;

    let log = Log::with_topic(&dir).await;
    assert_eq!(committed(&mut log.connect().await, "old", 0).await, -1, "it came back with a restart");
    log.stop().await;
}

#[tokio::test]
async fn positions_are_forgotten_one_by_one() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    for partition in 0..3 {
        commit_alone(&mut raw, "g", partition, 5).await;
    }
    assert_eq!(delete_offsets(&mut raw, "g", "t", &[0, 2, 99]).await, (0, vec![0, 0, 3]));
    assert_eq!(committed(&mut raw, "g", 0).await, -1);
    assert_eq!(committed(&mut raw, "g", 1).await, 5);
    assert_eq!(committed(&mut raw, "g", 2).await, -1);
    assert_eq!(delete_offsets(&mut raw, "nobody", "t", &[0]).await.0, 69);
    assert_eq!(delete_offsets(&mut raw, "", "t", &[0]).await.0, 24);
    // The member's subscription is unreadable, so it may include this topic.
    alone(&mut raw, "live").await;
    assert_eq!(delete_offsets(&mut raw, "live", "t", &[0]).await, (0, vec![86]));
    log.stop().await;
}
