//! What operators see and do when the outbox cannot continue.

use minishop_core::ids::EventId;
use minishop_store::{Journal, Missing, NewEvent, OutboxShard, Role, Unpublished};
use minishop_testkit::lot::requested_by;
use minishop_testkit::rows::{event, event_id, now, order_id};

use crate::support::Fixture;

/// Commits events of one key of the worker.
async fn commit(f: &Fixture, topic: &str, count: usize) -> Vec<NewEvent> {
    let of = |_| NewEvent { topic: topic.to_owned(), ..event(Role::Worker, "c1", order_id(), 2) };
    let events: Vec<_> = (0..count).map(of).collect();
    let mut settlement = f.store.inbox.begin("worker").await.unwrap();
    settlement.record(&Journal { events: events.clone(), ..Journal::default() }).await.unwrap();
    settlement.commit().await.unwrap();
    events
}

fn ids(events: &[NewEvent]) -> Vec<EventId> {
    events.iter().map(|event| event.event_id).collect()
}

async fn shard(f: &Fixture, shard: i16) -> OutboxShard {
    let shards = f.store.operations.outbox_shards().await.unwrap();
    shards.into_iter().find(|found| found.shard == shard).unwrap()
}

pub async fn what_waits_is_listed_and_counted(f: Fixture) {
    let events = commit(&f, "t", 6).await;
    let of = events[0].shard;
    assert!(f.acknowledge("a", of, 2).await);
    let waiting = f.store.operations.outbox_waiting(3).await.unwrap();
    assert_eq!(waiting.iter().map(|event| event.event_id).collect::<Vec<_>>(), ids(&events[2..5]), "the oldest first");
    assert_eq!((waiting[0].shard, waiting[0].number, waiting[0].topic.as_str()), (of, 3, "t"));
    assert_eq!(shard(&f, of).await, OutboxShard { shard: of, acknowledged: 2, last: 6, waiting: 4 });
    assert_eq!(f.store.operations.outbox_shards().await.unwrap().len(), 8);
    f.sql("DELETE FROM outbox_event WHERE number = 4").await;
    assert_eq!(shard(&f, of).await, OutboxShard { shard: of, acknowledged: 2, last: 6, waiting: 3 }, "one is missing");
}

pub async fn events_of_a_topic_are_set_aside_and_others_are_not(f: Fixture) {
    let (good, bad) = (commit(&f, "good", 3).await, commit(&f, "bad", 1_200).await);
    let last = commit(&f, "good", 1).await;
    let operations = &f.store.operations;
    let reason = requested_by("the topic is gone");
    assert_eq!(operations.set_aside(&Unpublished::Topic("bad".into()), &reason, now()).await.unwrap(), 1_200);
    assert_eq!(operations.set_aside(&Unpublished::Topic("bad".into()), &reason, now()).await.unwrap(), 0, "again");
    let waiting = operations.outbox_waiting(10).await.unwrap();
    assert_eq!(waiting.iter().map(|event| event.event_id).collect::<Vec<_>>(), [ids(&good), ids(&last)].concat());
    let rows = f.outbox().await;
    assert!(rows.iter().all(|row| row.set_aside == (row.event.topic == "bad")), "the leader passes them over");
    assert_eq!(rows.len(), 1_204, "their numbers stay");
    let kept = operations.outbox_set_aside(5_000).await.unwrap();
    assert!(kept.iter().all(|event| event.reason.as_deref() == Some("the topic is gone") && event.topic == "bad"));
    assert_eq!(kept.len(), bad.len());
    assert_eq!(operations.set_aside(&Unpublished::Event(last[0].event_id), &reason, now()).await.unwrap(), 1);
    assert_eq!(operations.set_aside(&Unpublished::Event(event_id()), &reason, now()).await.unwrap(), 0, "nobody's");
    let audit = operations.audit(None, 10).await.unwrap();
    assert!(audit.iter().all(|row| row.action == "outbox_set_aside" && row.requested_by == reason), "{audit:?}");
    assert_eq!(audit[0].detail.as_ref().unwrap().replace(' ', ""), format!(r#"{{"eventId":"{}","events":1}}"#, last[0].event_id));
    assert_eq!(audit.len(), 4, "one for each transaction");
}

pub async fn numbers_that_are_gone_are_stepped_over_and_no_others(f: Fixture) {
    let events = commit(&f, "t", 10).await;
    let of = events[0].shard;
    assert!(f.acknowledge("a", of, 2).await);
    f.sql("DELETE FROM outbox_event WHERE number IN (3, 4, 7)").await;
    let step_over =
        async |shard, number| f.store.operations.step_over(shard, number, &requested_by("they are gone"), now()).await.unwrap();
    for (shard, number) in [(of, 1), (of, 2), (of, 4), (of, 5), (of, 10), (of, 11), (of, -1), (4, 3), (of - 1, 1)] {
        assert_eq!(step_over(shard, number).await, Missing::No, "{shard}/{number}");
    }
    assert_eq!(f.outbox().await.len(), 6);
    assert_eq!(step_over(of, 3).await, Missing::SteppedOver(3, 4));
    assert_eq!(step_over(of, 3).await, Missing::No, "again");
    assert_eq!(step_over(of, 7).await, Missing::SteppedOver(7, 7));
    let rows = f.outbox().await;
    assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), (2..=10).collect::<Vec<_>>());
    let aside: Vec<i64> = rows.iter().filter(|row| row.set_aside).map(|row| row.number).collect();
    assert_eq!(aside, [3, 4, 7], "nothing is published in their place");
    assert!(f.acknowledge("a", of, 10).await);
    let audit = f.store.operations.audit(None, 10).await.unwrap();
    assert_eq!(audit.iter().map(|row| row.action.as_str()).collect::<Vec<_>>(), ["outbox_step_over", "outbox_step_over"]);
    assert!(audit[1].detail.as_ref().unwrap().replace(' ', "").contains(r#""from":3,"#), "{audit:?}");
}
