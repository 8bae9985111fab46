use std::sync::Arc;

use bytes::Bytes;
use minishop_bus::Headers;
use minishop_core::ids::{ClientId, CorrelationId};
use minishop_store::RequestedBy;

use super::*;

fn partition(n: i32) -> Partition {
    Partition { topic: Arc::from("t"), partition: n }
}

fn record(n: i32, offset: i64) -> Record {
    let topic = partition(n).topic;
    Record { topic, partition: n, offset, key: None, value: None, headers: Headers::default(), timestamp: 0 }
}

fn at(n: i32, next_offset: i64) -> Position {
    Position { topic: "t".to_owned(), partition: n, next_offset }
}

/// Owns partitions 0 and 1, both checked at offset 0, with `records` queued.
fn assignment(records: &[(i32, i64)]) -> Assignment {
    let mut state = Assignment::default();
    state.add(&[partition(0), partition(1)]);
    for n in [0, 1] {
        state.checked(&partition(n), 0, None);
    }
    for (n, offset) in records {
        state.push(record(*n, *offset));
    }
    state
}

fn places(batch: Option<Vec<Record>>) -> Vec<(i32, i64)> {
    batch.unwrap_or_default().iter().map(|r| (r.partition, r.offset)).collect()
}

#[test]
fn a_batch_is_bounded_and_in_the_order_of_reading() {
    let mut state = assignment(&[(0, 0), (1, 0), (0, 1)]);
    assert_eq!(places(state.take(2)), [(0, 0), (1, 0)]);
    state.settled(&[at(0, 1), at(1, 1)]);
    assert_eq!(places(state.take(2)), [(0, 1)]);
    state.settled(&[at(0, 2)]);
    assert_eq!(state.take(2), None);
}

#[test]
fn large_records_make_small_batches_and_fill_the_queue() {
    let mut state = assignment(&[]);
    let large = |offset| Record { value: Some(Bytes::from(vec![0; 5 << 20])), ..record(0, offset) };
    for offset in 0..6 {
        state.push(large(offset));
    }
    assert!(!state.is_full(), "30 MiB");
    state.push(large(6));
    assert!(state.is_full());
    assert_eq!(places(state.take(512)), [(0, 0)], "a second one would be above 8 MiB");
    state.settled(&[at(0, 1)]);
    state.push(Record { value: Some(Bytes::from(vec![0; 9 << 20])), ..record(1, 0) });
    while !state.is_half_empty() {
        let taken = places(state.take(512));
        assert_eq!(taken.len(), 1, "one larger than the bound goes alone");
        state.settled(&[]);
    }
}

#[test]
fn nothing_of_a_partition_is_processed_before_it_is_checked() {
    let mut state = assignment(&[]);
    state.add(&[partition(2)]);
    for (n, offset) in [(2, 7), (0, 0), (2, 8), (1, 0), (0, 1)] {
        state.push(record(n, offset));
    }
    assert_eq!(places(state.take(2)), [(0, 0), (1, 0)], "others flow");
    state.settled(&[]);
    state.checked(&partition(2), 7, None);
    assert_eq!(places(state.take(9)), [(2, 7), (2, 8), (0, 1)]);
}

#[test]
fn what_was_read_before_a_partition_was_moved_is_dropped() {
    let mut state = assignment(&[(0, 0)]);
    state.add(&[partition(2)]);
    state.push(record(2, 7));
    state.restart_at(&partition(2), 3, None);
    state.push(record(2, 3));
    assert_eq!((state.unchecked(), places(state.take(9))), (vec![], vec![(0, 0), (2, 3)]));
}

#[test]
fn a_failed_batch_is_the_first_again() {
    let mut state = assignment(&[(0, 0), (1, 0), (0, 1)]);
    let batch = state.take(2).unwrap();
    state.push(record(1, 1));
    state.put_back(batch);
    assert_eq!(places(state.take(9)), [(0, 0), (1, 0), (0, 1), (1, 1)]);
}

#[test]
fn records_of_a_partition_that_has_gone_are_dropped_wherever_they_are() {
    let mut state = assignment(&[(0, 0), (1, 0), (0, 1)]);
    let batch = state.take(2).unwrap();
    state.forget(&[partition(0)]);
    state.push(record(0, 2));
    state.put_back(batch);
    assert_eq!(places(state.take(9)), [(1, 0)]);
}

#[test]
fn a_revoked_partition_commits_what_its_running_transaction_settles() {
    let mut state = assignment(&[(0, 0), (1, 0), (0, 1)]);
    state.take(2).unwrap();
    state.stop_processing(&[partition(0)]);
    assert!(state.runs_one_of(Some(&[partition(0)])), "it is awaited");
    state.settled(&[at(0, 1), at(1, 1)]);
    assert!(!state.runs_one_of(None));
    assert_eq!(state.due(Some(&[partition(0)])), [at(0, 1)]);
    state.forget(&[partition(0)]);
    assert_eq!(state.due(None), [at(1, 1)], "and then it is another member's");
    assert_eq!(state.take(9), None, "its queued record is dropped");
}

#[test]
fn what_ends_after_its_partition_was_lost_is_not_committed() {
    let mut state = assignment(&[(0, 0), (1, 0)]);
    state.take(9).unwrap();
    state.forget(&[partition(0)]);
    // Assigned again before the transaction ends: the transaction belongs to the earlier assignment.
    state.add(&[partition(0)]);
    state.settled(&[at(0, 1), at(1, 1)]);
    assert_eq!(state.due(None), [at(1, 1)]);
}

#[test]
fn an_offset_is_committed_once_and_again_after_a_failure() {
    let mut state = assignment(&[(0, 0)]);
    assert_eq!(state.due(None), []);
    state.take(9).unwrap();
    state.settled(&[at(0, 1)]);
    assert_eq!(state.due(None), [at(0, 1)]);
    state.committed();
    assert_eq!(state.due(None), []);
    state.commit_failed();
    assert_eq!(state.due(None), [at(0, 1)]);
}

#[test]
fn after_the_close_no_batch_is_taken() {
    let mut state = assignment(&[(0, 0), (1, 0)]);
    let batch = state.take(1).unwrap();
    state.close();
    state.put_back(batch);
    assert_eq!(state.take(9), None);
}

#[test]
fn a_partition_in_which_the_store_has_gone_back_is_checked_again_before_more_of_it_is_processed() {
    let mut state = assignment(&[(0, 0), (1, 0)]);
    state.take(9).unwrap();
    assert_eq!(state.seen_of(&[partition(0), partition(1)]), [], "the store had nothing of them");
    state.settled(&[at(0, 1), at(1, 1)]);
    state.push(record(0, 1));
    state.push(record(1, 1));
    state.doubt(&[at(0, 1), at(1, 5)]);
    assert_eq!(state.unchecked(), [], "another worker has settled further");
    state.doubt(&[at(1, 1)]);
    assert_eq!(state.unchecked(), [partition(0)], "it has forgotten partition 0");
    assert_eq!(state.known(&partition(0)), (Some(1), Some(1)));
    assert_eq!(places(state.take(9)), [(1, 1)]);
    state.settled(&[at(1, 2)]);
    state.restart_at(&partition(0), 0, None);
    assert_eq!(state.due(None), [at(1, 2)], "what is not in the store is not committed");
    state.push(record(0, 0));
    assert_eq!(places(state.take(9)), [(0, 0)], "and what was read before is dropped");
    state.settled(&[at(0, 1)]);
    state.check_again(&[at(1, 2)]);
    state.checked(&partition(1), 2, Some(2));
    assert_eq!(state.due(Some(&[partition(1)])), [at(1, 2)], "a check commits nothing");
}

#[test]
fn where_the_store_stood_is_forgotten_with_the_partition() {
    let mut state = assignment(&[]);
    state.checked(&partition(0), 3, Some(7));
    state.push(record(0, 3));
    state.take(9).unwrap();
    assert_eq!(state.seen_of(&[partition(0)]), [at(0, 7)]);
    state.settled(&[at(0, 4)]);
    assert_eq!(state.known(&partition(0)), (Some(4), Some(7)), "it never counts back");
    state.forget(&[partition(0)]);
    state.add(&[partition(0)]);
    state.checked(&partition(0), 4, None);
    state.doubt(&[]);
    assert_eq!(state.unchecked(), []);
}

#[test]
fn what_cannot_be_read_is_stepped_over_after_all_before_it() {
    let mut state = assignment(&[(0, 0), (1, 0)]);
    let requested_by = RequestedBy {
        client_id: ClientId::anonymous(),
        operator: String::new(),
        reason: String::new(),
        correlation_id: CorrelationId::parse("c").unwrap(),
    };
    let gap = |n| Gap { partition: partition(n), from: 1, until: 3, error: String::new(), requested_by: requested_by.clone() };
    state.step_over(gap(0));
    state.step_over(gap(0));
    state.step_over(gap(7));
    assert_eq!(state.take_gap(), None, "a record waits before it");
    state.take(9).unwrap();
    state.settled(&[at(0, 1), at(1, 1)]);
    assert_eq!(state.take_gap(), Some(gap(0)));
    assert!(state.runs_one_of(Some(&[partition(0)])), "a rebalance awaits it");
    state.settled(&[at(0, 3)]);
    assert_eq!(state.due(Some(&[partition(0)])), [at(0, 3)]);
    assert_eq!(state.take_gap(), None, "asked for twice it is one, and none of a partition that is another's");
}
