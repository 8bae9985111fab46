//! Invalid record batches and produce requests, and what idempotent producers may repeat.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{InitProducerIdRequest, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use tempfile::tempdir;

use super::batch::{Batch, numbered, plain};
use super::fixture::Log;
use super::raw::{partitions, produce};

fn altered(bytes: &Bytes, at: usize, value: u8) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] = value;
    bytes.into()
}

fn batches_and_answers() -> Vec<(&'static str, Bytes, i16)> {
    let good = plain(&["good"]).bytes();
    let with = |change: fn(&mut Batch)| {
        let mut batch = plain(&["x"]);
        change(&mut batch);
        batch.bytes()
    };
    vec![
        ("wrong checksum", altered(&good, 17, good[17] ^ 1), 2),
        ("a flipped bit in a record", altered(&good, good.len() - 2, b'G'), 2),
        ("length too small", with(|b| b.length_error = -1), 2),
        ("length too large", with(|b| b.length_error = 1), 2),
        ("negative length", with(|b| b.length_error = -1000), 2),
        ("empty", Bytes::new(), 2),
        ("cut within the header", good.slice(..40), 2),
        ("magic 0", with(|b| b.magic = 0), 87),
        ("magic 1", with(|b| b.magic = 1), 87),
        ("two batches", [good.clone(), good.clone()].concat().into(), 87),
        ("one record too many counted", with(|b| b.count_error = 1), 87),
        ("no record counted", with(|b| b.count_error = -1), 87),
        ("no record", with(|b| b.values.clear()), 87),
        ("unknown compression", with(|b| b.attributes = 5), 76),
        ("transactional", with(|b| b.attributes = 16), 48),
        ("control", with(|b| b.attributes = 32), 48),
        ("1 000 001 bytes", Batch::of_size(1_000_001), 10),
        ("1 000 000 bytes", Batch::of_size(1_000_000), 0),
    ]
}

#[tokio::test]
async fn wrong_batches_are_refused_and_good_neighbours_stored() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    let good = plain(&["good"]).bytes();
    let mut stored = 0;
    for (what, bytes, expected) in batches_and_answers() {
        let request = produce("t", vec![(0, bytes), (1, good.clone()), (99, good.clone())], -1);
        let answer = partitions(raw.call(9, &request).await);
        let codes: Vec<i16> = answer.iter().map(|partition| partition.error_code).collect();
        assert_eq!(codes, [expected, 0, 3], "{what}");
        assert_eq!(answer[1].base_offset, stored, "{what}: the neighbour's offset");
        assert_eq!(answer[0].base_offset, if expected == 0 { 0 } else { -1 }, "{what}");
        stored += 1;
    }
    assert_eq!(raw.fetch("t", 0, 0).await.high_watermark, 1);
    assert_eq!(raw.fetch("t", 1, 0).await.high_watermark, stored);
    log.stop().await;
}

#[tokio::test]
async fn acks_decide_about_the_answer() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    let good = || plain(&["x"]).bytes();
    for acks in [2, -2] {
        let answer = partitions(raw.call(9, &produce("t", vec![(0, good())], acks)).await);
        assert_eq!(answer[0].error_code, 21, "acks {acks}");
    }
    let answer = partitions(raw.call(9, &produce("nowhere", vec![(0, good())], 1)).await);
    assert_eq!(answer[0].error_code, 3);
    raw.send(9, &produce("t", vec![(0, good())], 0)).await;
    // The next answer is that of the fetch: acks 0 got none, and its batch was stored before.
    let data = raw.fetch("t", 0, 0).await;
    assert_eq!(data.high_watermark, 1);
    assert_eq!(raw.topics().await.len(), 1, "a topic was made");
    let mut other = log.connect().await;
    other.send(9, &produce("nowhere", vec![(0, good())], 0)).await;
    assert!(other.closes_within(Duration::from_secs(2)).await, "closing is the only way to tell of a failure");
    log.stop().await;
}

#[tokio::test]
async fn idempotent_producers_may_repeat_but_not_skip() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    let producer = raw.new_producer().await;
    // Six batches of two records: sequences 0, 2, 4, 6, 8, 10.
    for n in 0..6 {
        let answer = raw.produce("t", 0, numbered(producer, 3, n * 2, 2).bytes()).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(n) * 2));
    }
    let rows = [
        ("the newest again", 3, 10, 2, 0, 10),
        ("the fifth last again", 3, 2, 2, 0, 2),
        ("the sixth last again", 3, 0, 2, 46, -1),
        ("a gap", 3, 13, 2, 45, -1),
        ("a part of the newest", 3, 11, 1, 45, -1),
        ("an older epoch", 2, 12, 2, 47, -1),
        ("a newer epoch that does not start at 0", 4, 12, 2, 45, -1),
        ("the next", 3, 12, 2, 0, 12),
        ("a newer epoch", 4, 0, 1, 0, 14),
        ("the former epoch", 3, 14, 1, 47, -1),
    ];
    for (what, epoch, sequence, count, code, offset) in rows {
        let answer = raw.produce("t", 0, numbered(producer, epoch, sequence, count).bytes()).await;
        assert_eq!((answer.error_code, answer.base_offset), (code, offset), "{what}");
    }
    let other = raw.new_producer().await;
    assert_ne!(other, producer);
    let answer = raw.produce("t", 0, numbered(other, 0, 7, 1).bytes()).await;
    assert_eq!(answer.error_code, 59, "an unknown producer that does not start at 0");
    log.stop().await;
}

#[tokio::test]
async fn an_id_under_which_records_stand_is_not_handed_out() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    let first = raw.new_producer().await;
    // Clients may use ids that this log never assigned.
    for taken in [first + 1, first + 2, first + 4, i64::MAX] {
        assert_eq!(raw.produce("t", 1, numbered(taken, 0, 0, 1).bytes()).await.error_code, 0);
    }
    let given = [raw.new_producer().await, raw.new_producer().await, raw.new_producer().await];
    assert_eq!(given, [first + 3, first + 5, first + 6]);
    log.stop().await;
}

#[tokio::test]
async fn pipelined_batches_of_one_producer_keep_their_order() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    let producer = raw.new_producer().await;
    let mut pipelined = log.connect().await;
    for n in 0..20 {
        // Each batch is sent twice, as after a lost answer; repeats share a commit with the first.
        for _ in 0..2 {
            let batch = numbered(producer, 0, n * 3, 3).bytes();
            pipelined.send(9, &produce("t", vec![(0, batch)], -1)).await;
        }
    }
    for n in 0..40 {
        let answer = partitions(pipelined.receive(n + 1, 9).await).remove(0);
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(n / 2 * 3)));
    }
    assert_eq!(raw.fetch("t", 0, 0).await.high_watermark, 60);
    log.stop().await;
}

#[tokio::test]
async fn transactions_are_refused() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    let id = || Some(TransactionalId(StrBytes::from_static_str("tx")));
    let answer = raw.call(4, &InitProducerIdRequest::default().with_transactional_id(id())).await;
    assert_eq!((answer.error_code, answer.producer_id.0), (53, -1));
    let mut request = produce("t", vec![(0, plain(&["x"]).bytes())], -1);
    request.transactional_id = id();
    assert_eq!(partitions(raw.call(9, &request).await)[0].error_code, 53);
    assert_eq!(raw.fetch("t", 0, 0).await.high_watermark, 0);
    log.stop().await;
}
