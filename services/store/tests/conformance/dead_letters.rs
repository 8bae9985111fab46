//! What operators read of dead letters and parked keys.

use bytes::Bytes;
use minishop_core::parking::State as Parked;
use minishop_store::{DeadLetterFilter, ParkedEvent};
use minishop_testkit::lot::parked;
use minishop_testkit::rows::{event_id, now, order};

use crate::repairing::{dead, dead_of, park};
use crate::support::Fixture;

pub async fn dead_letters_are_found_by_each_filter(f: Fixture) {
    let odd = ParkedEvent {
        error_class: Some("odd"),
        error_code: Some("ODD"),
        error_fingerprint: Some([7; 32]),
        topic: "elsewhere".into(),
        ..parked("the key", Parked::Dead, true)
    };
    let wanted = park(&f, vec![odd.clone()]).await;
    dead(&f, 3).await;
    park(
        &f,
        vec![ParkedEvent { event_id: event_id(), ..odd.clone() }]
            .into_iter()
            .map(|p| ParkedEvent { state: Parked::Waiting, ..p })
            .collect(),
    )
    .await;
    let any = DeadLetterFilter::default;
    for filter in [
        DeadLetterFilter { error_class: Some("odd".into()), ..any() },
        DeadLetterFilter { error_code: Some("ODD".into()), ..any() },
        DeadLetterFilter { error_fingerprint: Some(Bytes::from_static(&[7; 32])), ..any() },
        DeadLetterFilter { topic: Some("elsewhere".into()), ..any() },
        DeadLetterFilter { record_key: Some(Bytes::from_static(b"the key")), ..any() },
        DeadLetterFilter { order_id: odd.order_id, ..any() },
    ] {
        let found = f.store.operations.dead_letters(&filter, None, 10).await.unwrap();
        assert_eq!(found.iter().map(|letter| letter.id).collect::<Vec<_>>(), wanted, "{filter:?}");
    }
    let newest = f.store.operations.dead_letters(&any(), None, 2).await.unwrap();
    let rest = f.store.operations.dead_letters(&any(), Some(newest[1].id), 10).await.unwrap();
    let listed: Vec<i64> = newest.iter().chain(&rest).map(|letter| letter.id).collect();
    assert!(listed.is_sorted_by(|a, b| a > b), "newest first: {listed:?}");
    assert_eq!(listed.len(), 4);
}

pub async fn a_dead_letter_is_read_with_its_bytes_and_its_order(f: Fixture) {
    let made = order("a", "k1");
    f.accept(std::slice::from_ref(&made)).await;
    let event = ParkedEvent { raw_value: Some(Bytes::from_static(b"\x00\xff")), ..dead_of(&made) };
    let id = park(&f, vec![event.clone(), parked("c1", Parked::Waiting, true), parked("c1", Parked::Waiting, true)]).await[0];
    let whole = f.store.operations.dead_letter(id).await.unwrap().unwrap();
    assert_eq!((whole.raw_key, whole.raw_value, whole.raw_headers), (event.raw_key, event.raw_value, event.raw_headers));
    assert_eq!((whole.waiting, whole.order_status.as_deref(), whole.next_attempt_at), (2, Some("created"), None));
    assert_eq!((whole.letter.order_id, whole.letter.state.as_str()), (Some(made.head.order_id), "dead"));
    assert_eq!(f.store.operations.dead_letter(id + 100).await.unwrap(), None);
}

pub async fn equal_failures_form_a_group(f: Fixture) {
    dead(&f, 2).await;
    let other = |fingerprint| ParkedEvent { error_fingerprint: fingerprint, ..parked("k", Parked::Dead, false) };
    let newest =
        *park(&f, vec![other(Some([1; 32])), other(None), other(Some([1; 32])), other(Some([1; 32]))]).await.last().unwrap();
    let groups = f.store.operations.dead_letter_groups(10).await.unwrap();
    assert_eq!(groups.iter().map(|group| group.count).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!((groups[0].example, groups[0].error_fingerprint.as_deref()), (newest, Some(&[1; 32][..])));
    assert_eq!((groups[2].error_fingerprint.clone(), groups[2].first_failed_at), (None, now()));
}

pub async fn a_parked_key_is_told_by_its_head(f: Fixture) {
    let head = park(&f, vec![parked("c1", Parked::Dead, true)]).await[0];
    let newer = ParkedEvent { needs_type: Some("orders.created.v2".into()), ..parked("c2", Parked::Waiting, true) };
    park(
        &f,
        vec![parked("c1", Parked::Waiting, true), parked("c3", Parked::Dead, false), newer, parked("c1", Parked::Waiting, true)],
    )
    .await;
    let keys = f.store.operations.parked_keys(None, 10).await.unwrap();
    let told: Vec<_> = keys.iter().map(|key| (&key.record_key[..], key.state.as_str(), key.waiting)).collect();
    assert_eq!(told, [(&b"c1"[..], "dead", 2), (&b"c2"[..], "waiting", 0)]);
    assert_eq!((keys[0].head, keys[1].needs_type.as_deref()), (head, Some("orders.created.v2")));
    let rest = f.store.operations.parked_keys(Some(head), 10).await.unwrap();
    assert_eq!(rest, keys[1..]);
}
