//! Records that the client library cannot read: their partition waits, others flow, and an operator's skip resumes it.

use std::collections::BTreeSet;
use std::time::Duration;

use minishop_store::Gap;
use minishop_testkit::lot::requested_by;
use minishop_testkit::wait::becomes;
use minishop_worker::WorkerShared;
use minishop_worker::handlers::HandlerPlace;
use minishop_worker::upcast::Versions;

use crate::consuming::{Worker, until_processed, worker_with};
use crate::log::{Damage, PARTITIONS, damageable};
use crate::records::{Sent, created};
use crate::shop::{Shop, now};

fn stuck(worker: &Worker) -> BTreeSet<i32> {
    (0..PARTITIONS).filter(|n| worker.partition_metric("worker_partition_unreadable", *n) == Some(1)).collect()
}

/// Sends events, damages a batch of partition 1, and checks that the worker reports the place, reads around it, and skips it on
/// request.
async fn a_place_is_named_and_stepped_over(shop: &Shop, damage: Damage, word: &str) {
    let mut log = damageable().await;
    let events: Vec<Sent> = (0..60).map(|_| created()).collect();
    log.send_events(&events[..30]).await;
    let (before, _) = log.ends_and_offsets().await;
    log.send_events(&events[30..]).await;
    let (behind, _) = log.ends_and_offsets().await;
    log.damage(1, before[1], damage).await;
    let lost = behind[1] - before[1];
    assert!(lost > 0, "some of the second half are in partition 1");
    let impatient =
        WorkerShared { standstill: Duration::from_secs(3), ..WorkerShared::new(HandlerPlace::Stream, Versions::current()) };
    let running = worker_with(&shop.store, &log, "running", impatient);
    until_processed(shop, 60 - lost).await;
    becomes("unreadable partitions", async || stuck(&running), BTreeSet::from([1])).await;
    let note = running.note("event_log").unwrap();
    let place = format!("partition 1 of {} cannot be read at offset {}", log.topic("created"), before[1]);
    assert!(note.contains(&place) && note.contains(word), "{note}");
    // Records behind it wait; other partitions flow.
    let more: Vec<Sent> = (0..40).map(|_| created()).collect();
    log.send_events(&more).await;
    let (ends, _) = log.ends_and_offsets().await;
    let waiting = ends[1] - behind[1];
    until_processed(shop, 100 - lost - waiting).await;
    // A skip of another offset, or beyond the log's end, has no effect.
    let gap =
        |offset, until| Gap { consumer: format!("{}g", log.prefix), topic: log.topic("created"), partition: 1, offset, until };
    for other in [gap(before[1] + 1, behind[1]), gap(before[1], ends[1] + 1_000)] {
        shop.store.operations.skip(&other, requested_by("wrong"), now()).await.unwrap();
    }
    shop.store.operations.skip(&gap(before[1], behind[1]), requested_by("a broken mirror"), now()).await.unwrap();
    until_processed(shop, 100 - lost).await;
    becomes("unreadable partitions, and the note", async || (stuck(&running).len(), running.note("event_log")), (0, None)).await;
    let dead = shop.parked().await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!((dead[0].error_code.as_deref(), dead[0].source_offset), (Some("RECORD_UNREADABLE"), before[1]));
    let message = dead[0].error_message.clone().unwrap();
    assert!(
        message.contains("skipped by ana: a broken mirror") && message.contains(&format!("to {}", behind[1] - 1)),
        "{message}"
    );
    assert_eq!(dead[0].raw_value, None);
    log.is_committed_to_its_end().await;
    running.drain().await;
}

pub async fn a_batch_with_a_right_checksum_and_no_records_is_named_and_stepped_over(shop: Shop) {
    a_place_is_named_and_stepped_over(&shop, Damage::Garbage, "not valid records").await;
}

pub async fn a_batch_that_its_codec_cannot_read_is_named_and_stepped_over(shop: Shop) {
    a_place_is_named_and_stepped_over(&shop, Damage::Codec, "cannot be read").await;
}

pub async fn a_batch_with_a_wrong_checksum_is_named_and_stepped_over(shop: Shop) {
    a_place_is_named_and_stepped_over(&shop, Damage::Checksum, "cannot be read").await;
}
