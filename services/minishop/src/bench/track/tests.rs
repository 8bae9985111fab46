//! Orders that are lost, doubled, copied, early, or not ours.

use super::*;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// A track with orders 1 to 3, acknowledged at `begun`.
fn three(begun: Instant) -> Track {
    let track = Track::new();
    track.begin(begun);
    (1..=3).for_each(|order| track.acknowledged(id(order), begun, true));
    track
}

#[test]
fn an_order_without_an_event_is_lost() {
    let begun = Instant::now();
    let track = three(begun);
    for order in [1, 3] {
        track.processed(id(order), id(order + 10), begun);
    }
    assert_eq!(track.verdict(), Verdict { awaited: 3, lost: 1, doubled: 0, copies: 0 });
    assert_eq!(track.progress(), Progress { open: 1, processed: 2 });
}

#[test]
fn two_events_of_an_order_double_it_and_copies_of_one_event_do_not() {
    let begun = Instant::now();
    let track = three(begun);
    for (order, event) in [(1, 11), (1, 11), (1, 11), (2, 12), (2, 22), (2, 32), (3, 13)] {
        track.processed(id(order), id(event), begun);
    }
    assert_eq!(track.verdict(), Verdict { awaited: 3, lost: 0, doubled: 1, copies: 2 });
    assert_eq!((track.progress().open, track.measured().processed), (0, 3), "each order counts once");
}

#[test]
fn an_event_before_its_acknowledgement_counts_and_one_of_another_client_does_not() {
    let begun = Instant::now();
    let track = Track::new();
    track.processed(id(1), id(11), begun);
    track.processed(id(2), id(12), begun);
    track.processed(id(2), id(22), begun);
    track.acknowledged(id(1), begun + Duration::from_millis(5), true);
    assert_eq!(track.verdict(), Verdict { awaited: 1, lost: 0, doubled: 0, copies: 0 });
    assert_eq!(track.measured().took.max(), 0, "it was processed before its acknowledgement was read");
    assert_eq!(track.progress().open, 0);
}

#[test]
fn an_order_of_a_failing_customer_is_not_awaited() {
    let begun = Instant::now();
    let track = Track::new();
    track.acknowledged(id(1), begun, false);
    assert_eq!(track.verdict(), Verdict::default());
    assert_eq!(track.progress().open, 0);
}

#[test]
fn what_was_measured_before_the_begin_is_forgotten_and_judged_all_the_same() {
    let begun = Instant::now();
    let track = three(begun);
    track.processed(id(1), id(11), begun + Duration::from_secs(9));
    track.begin(begun + Duration::from_secs(10));
    track.acknowledged(id(4), begun + Duration::from_secs(10), true);
    track.processed(id(4), id(14), begun + Duration::from_secs(11));
    let measured = track.measured();
    assert_eq!((measured.processed, measured.took.len(), measured.over_time.counts()), (1, 1, vec![0, 1]));
    assert_eq!(measured.last, begun + Duration::from_secs(11));
    assert_eq!(track.verdict(), Verdict { awaited: 4, lost: 2, doubled: 0, copies: 0 });
}

#[tokio::test]
async fn waiting_ends_when_all_are_processed_or_none_is_for_too_long() {
    let begun = Instant::now();
    let track = three(begun);
    assert!(!track.settled(Duration::from_millis(20)).await, "nothing is processed");
    (1..=3).for_each(|order| track.processed(id(order), id(order + 10), begun));
    assert!(track.settled(Duration::from_secs(30)).await);
}
