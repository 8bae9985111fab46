//! The parking lot, stepped by hand: attempts, dead letters, leases, and concurrent changes.

use std::collections::HashSet;
use std::time::Duration;

use minishop_bus::Headers;
use minishop_worker::handlers::Handled;
use serde_json::{Value, json};

use crate::handler::{Reaction, done, failed, scripted};
use crate::records::{Sent, created};
use crate::shop::Shop;

pub const DEAD: &str = "orders.created.dlq";
/// Longer than a call's lease: the longest call and half a minute.
pub const LEASE: Duration = Duration::from_secs(41);

pub fn kinds(timeline: &[(String, Value)]) -> Vec<&str> {
    timeline.iter().map(|(kind, _)| kind.as_str()).collect()
}

pub async fn a_handler_that_fails_twice_and_then_succeeds_processes_once(shop: Shop) {
    let handler = scripted(|_, before| if before < 2 { failed() } else { done() });
    let event = created().accepted(&shop, "a").await;
    let mut worker = shop.hands(handler.place());
    worker.stream(&[event.record()]).await;
    assert_eq!(shop.order(event.order_id()).await.unwrap().status, "created", "nothing is handled in the stream");
    assert_eq!(worker.lot().await, 1);
    // Restarted between all attempts: nothing is lost. The waits are the longest of each backoff.
    for wait in [1, 4].map(Duration::from_mins) {
        worker = shop.hands(handler.place());
        assert_eq!(worker.lot().await, 0, "not before its time");
        shop.age(wait / 2).await;
        assert_eq!(worker.lot().await, 0, "nor after half of it");
        shop.age(wait / 2).await;
        assert_eq!(worker.lot().await, 1);
    }
    assert_eq!(handler.calls().len(), 3);
    assert_eq!(shop.order(event.order_id()).await.unwrap().status, "processed");
    assert_eq!((shop.published("orders.processed").await.len(), shop.parked().await.len()), (1, 0));
    let timeline = shop.timeline(event.order_id()).await;
    assert_eq!(kinds(&timeline), ["parked", "attempt", "attempt", "processed", "released"]);
    for (n, (_, detail)) in timeline[1..3].iter().enumerate() {
        assert_eq!((&detail["attempt"], &detail["class"]), (&json!(n + 1), &json!("transient")));
        assert_eq!(detail["message"], "the endpoint answered 503");
        assert!(detail["nextAttemptAt"].is_string());
    }
    assert_eq!(timeline[4].1, json!({"attempts": 3}));
    shop.step(&[event.record()]).await;
    assert_eq!(shop.published("orders.processed").await.len(), 1, "a copy changes nothing");
}

pub async fn what_is_refused_for_good_is_dead_at_once_and_its_key_waits(shop: Shop) {
    let handler = scripted(|delivery, _| match delivery.record_key.as_ref() {
        b"bad" => Reaction::Say(Handled::Refused { message: "the endpoint answered 422\nno\0".to_owned() }),
        _ => done(),
    });
    let bad = created().with("/data/customerId", "bad").keyed(Some(b"bad")).accepted(&shop, "a").await;
    let (behind, other) = (bad.same_customer(), created());
    let mut worker = shop.hands(handler.place());
    worker.stream(&[bad.record(), behind.record(), other.record()]).await;
    worker.drain().await;
    assert_eq!(HashSet::from_iter(handler.calls()), HashSet::from([bad.order_id(), other.order_id()]));
    assert_eq!(shop.order(behind.order_id()).await.unwrap().status, "created");
    let parked = shop.parked().await;
    let told: Vec<_> = parked.iter().map(|p| (&*p.state, p.blocks, p.attempts, p.error_code.as_deref())).collect();
    assert_eq!(told, [("dead", true, 1, Some("WEBHOOK_REFUSED")), ("waiting", true, 0, None)]);
    assert_eq!(parked[0].error_message.as_deref(), Some("the endpoint answered 422 no "));
    let timeline = shop.timeline(bad.order_id()).await;
    assert_eq!(kinds(&timeline), ["parked", "dead"]);
    let detail =
        json!({"attempts": 1, "class": "permanent", "code": "WEBHOOK_REFUSED", "message": "the endpoint answered 422 no "});
    assert_eq!(timeline[1].1, detail);
    assert_eq!(worker.metric("worker_dead_letters_total{class=\"permanent\",code=\"WEBHOOK_REFUSED\"}"), 1);
    let letter = shop.published(DEAD).await.pop().unwrap().event;
    assert_eq!((letter.payload, &letter.record_key[..]), (bad.record().value, &b"bad"[..]));
}

pub async fn a_handler_that_panics_eight_times_makes_a_dead_letter(shop: Shop) {
    let handler = scripted(|_, _| panic!("out of paper"));
    let event = created().header("x", "1");
    let source = event.record();
    let mut worker = shop.hands(handler.place());
    worker.stream(std::slice::from_ref(&source)).await;
    for attempt in 1..=8 {
        assert_eq!(worker.lot().await, 1, "attempt {attempt}");
        shop.age(Duration::from_hours(12)).await;
    }
    assert_eq!((worker.lot().await, handler.calls().len()), (0, 8));
    let parked = &shop.parked().await[0];
    assert_eq!((&*parked.state, parked.blocks, parked.attempts), ("dead", true, 8));
    assert_eq!(parked.error_message.as_deref(), Some("the handler panicked: out of paper"));
    let letters = shop.published(DEAD).await;
    assert_eq!(letters.len(), 1);
    let headers = Headers::decode(&letters[0].event.headers).unwrap();
    let header = |name| headers.get(name).unwrap_or_default().to_owned();
    assert_eq!(letters[0].event.payload, source.value, "with its own bytes");
    assert_eq!(header("x"), "1");
    let place = (header("dlq-topic"), header("dlq-partition"), header("dlq-offset"));
    assert_eq!(place, ("orders.created".to_owned(), "3".to_owned(), source.offset.to_string()));
    let why = (header("dlq-error-class"), header("dlq-error-code"), header("dlq-attempts"));
    assert_eq!(why, ("panic".to_owned(), "ATTEMPTS_EXHAUSTED".to_owned(), "8".to_owned()));
    assert_eq!(header("dlq-first-failed"), "2025-10-09T08:53:20.000Z");
    assert_eq!(header("dlq-error-message"), "the handler panicked: out of paper");
    assert!(!header("dlq-last-failed").is_empty());
    assert_eq!(worker.metric("lot_attempts_total{outcome=\"panicked\"}"), 8);
    assert_eq!(worker.metric("lot_retries_total"), 7);
    let timeline = shop.timeline(event.order_id()).await;
    assert_eq!(kinds(&timeline).iter().filter(|kind| **kind == "attempt").count(), 7);
    assert_eq!(kinds(&timeline).last(), Some(&"dead"));
}

pub async fn a_handler_that_ends_its_worker_is_found_out_over_restarts(shop: Shop) {
    let handler = scripted(|_, _| Reaction::Hang);
    let event = created();
    shop.hands(handler.place()).stream(&[event.record()]).await;
    for attempt in 1..=8 {
        let mut worker = shop.hands(handler.place());
        // The attempt is committed when the call starts; then the process is gone.
        tokio::select! { _ = worker.lot.step() => panic!("it hangs"), () = handler.is_called(attempt) => {} }
        drop(worker);
        shop.age(LEASE).await;
    }
    let mut worker = shop.hands(handler.place());
    assert_eq!((worker.lot().await, handler.calls().len()), (1, 8), "it is not called a ninth time");
    let parked = &shop.parked().await[0];
    assert_eq!((&*parked.state, parked.attempts, parked.error_code.as_deref()), ("dead", 8, Some("ATTEMPTS_EXHAUSTED")));
    let headers = Headers::decode(&shop.published(DEAD).await[0].event.headers).unwrap();
    assert_eq!((headers.get("dlq-error-class"), headers.get("dlq-attempts")), (Some("crash"), Some("8")));
    let timeline = shop.timeline(event.order_id()).await;
    let attempts: Vec<_> = timeline.iter().filter(|(kind, _)| kind == "attempt").map(|(_, d)| d["attempt"].clone()).collect();
    assert_eq!(attempts, (1..=8).map(|n| json!(n)).collect::<Vec<_>>(), "each is told of by the one that came after it");
}

pub async fn an_outcome_that_comes_after_its_lease_is_dropped(shop: Shop) {
    let slow = scripted(|_, _| Reaction::When(Handled::Done));
    let quick = scripted(|_, _| failed());
    let event = created();
    let mut late = shop.hands(slow.place());
    late.stream(&[event.record()]).await;
    let mut second = shop.hands(quick.place());
    let meanwhile = async {
        slow.is_called(1).await;
        shop.age(LEASE).await;
        assert_eq!(second.lot().await, 1);
        slow.open();
    };
    let (claimed, ()) = futures::join!(late.lot.step(), meanwhile);
    assert_eq!(claimed.unwrap(), 1);
    assert_eq!(shop.order(event.order_id()).await.unwrap().status, "created");
    assert_eq!((shop.published("orders.processed").await.len(), shop.parked().await[0].attempts), (0, 2));
    assert_eq!(late.metric("lot_lost_leases_total"), 1);
}

pub async fn a_pause_uses_up_no_attempt(shop: Shop) {
    let handler = scripted(|_, before| if before < 20 { Reaction::Say(Handled::Paused) } else { done() });
    let event = created();
    let mut worker = shop.hands(handler.place());
    worker.stream(&[event.record()]).await;
    *handler.pause.lock().unwrap() = Some(Duration::from_secs(30));
    for _ in 0..20 {
        assert_eq!(worker.lot().await, 1);
        assert_eq!(shop.parked().await[0].attempts, 0);
        assert_eq!(worker.lot().await, 0, "not before the pause is over");
        shop.age(Duration::from_secs(30)).await;
    }
    assert_eq!(worker.drain().await, 1);
    assert_eq!(kinds(&shop.timeline(event.order_id()).await), ["adopted", "parked", "processed", "released"]);
}

pub async fn a_handlers_wish_to_be_left_alone_is_kept(shop: Shop) {
    let wish = |secs| {
        move |_: &_, _| {
            let retry_after = Some(Duration::from_secs(secs));
            Reaction::Say(Handled::Failed { message: "429".to_owned(), retry_after })
        }
    };
    for (asked, waits) in [(200, 200), (86_400, 300)] {
        let event = created();
        let mut worker = shop.hands(scripted(wish(asked)).place());
        worker.stream(&[event.record()]).await;
        assert_eq!(worker.lot().await, 1);
        shop.age(Duration::from_secs(waits - 60)).await;
        assert_eq!(worker.lot().await, 0, "asked for {asked} s");
        shop.age(Duration::from_mins(1)).await;
        assert_eq!(worker.lot().await, 1, "asked for {asked} s, and at most five minutes are kept");
        shop.sql("DELETE FROM parked").await;
    }
}

pub async fn a_store_that_is_away_uses_up_nothing(shop: Shop) {
    let handler = scripted(|_, before| if before == 0 { failed() } else { done() });
    let event = created();
    let mut worker = shop.hands(handler.place());
    worker.stream(&[event.record()]).await;
    for _ in 0..2 {
        shop.sql("ALTER TABLE timeline RENAME TO away").await;
        for _ in 0..10 {
            assert!(worker.lot.step().await.is_err(), "what came of the call cannot be written");
        }
        shop.sql("ALTER TABLE away RENAME TO timeline").await;
        worker.lot().await;
        shop.age(Duration::from_mins(1)).await;
    }
    worker.drain().await;
    assert_eq!(handler.calls().len(), 2, "called once for each attempt");
    assert_eq!(kinds(&shop.timeline(event.order_id()).await), ["adopted", "parked", "attempt", "processed", "released"]);
}

pub async fn an_event_that_the_store_cannot_settle_is_given_up_and_its_neighbours_are_not(shop: Shop) {
    let handler = scripted(|_, _| done());
    let events: Vec<_> = (0..5).map(|_| created()).collect();
    let mut worker = shop.hands(handler.place());
    worker.stream(&events.iter().map(Sent::record).collect::<Vec<_>>()).await;
    let bad = shop.id(events[2].order_id());
    shop.sql(&format!("CREATE UNIQUE INDEX no_such_order ON timeline (kind) WHERE kind = 'released' AND order_id = {bad}")).await;
    let noted = format!(
        "INSERT INTO timeline (order_id, kind, at, cause) SELECT order_id, 'released', at, cause FROM timeline \
        WHERE order_id = {bad} AND kind = 'parked'"
    );
    shop.sql(&noted).await;
    worker.drain().await;
    for (n, event) in events.iter().enumerate() {
        let expected = if n == 2 { "created" } else { "processed" };
        assert_eq!(shop.order(event.order_id()).await.unwrap().status, expected, "{n}");
    }
    let parked = shop.parked().await;
    assert_eq!((parked.len(), &*parked[0].state, parked[0].error_code.as_deref()), (1, "dead", Some("DATA_INVALID")));
}

pub async fn a_drain_gives_back_what_has_not_ended(shop: Shop) {
    let handler = scripted(|_, _| Reaction::Hang);
    let event = created();
    let worker = shop.hands(handler.place());
    worker.stream(&[event.record()]).await;
    let ctx = worker.ctx.clone();
    let draining = async {
        handler.is_called(1).await;
        ctx.drain.cancel();
    };
    let (ran, (), ()) = futures::join!(worker.lot.run(worker.ctx.clone()), draining, shop.run_relay());
    ran.unwrap();
    let handler = scripted(|_, _| done());
    assert_eq!(shop.parked().await[0].attempts, 0, "it was not the handler's fault");
    assert_eq!(shop.hands(handler.place()).lot().await, 1, "nobody waits for its lease");
    assert_eq!(shop.order(event.order_id()).await.unwrap().status, "processed");
}

pub async fn a_handler_gets_the_event_as_the_newest_version(shop: Shop) {
    let handler = scripted(|_, _| done());
    let (ours, demos) = (created().with("/extra", 1), created().with("/type", "orders.created"));
    let mut worker = shop.hands(handler.place());
    worker.stream(&[ours.record()]).await;
    worker.drain().await;
    let given = handler.last();
    assert_eq!(Some(&given.envelope), ours.record().value.as_ref(), "byte for byte");
    assert_eq!((given.event_id, given.record_key), (ours.event_id(), ours.key.clone().unwrap()));
    assert_eq!(
        (given.correlation_id.as_str(), given.idempotency_key.as_str()),
        (&*ours.text("/correlationId"), &*ours.text("/idempotencyKey"))
    );
    worker.stream(&[demos.record()]).await;
    worker.drain().await;
    let given: Value = serde_json::from_slice(&handler.last().envelope).unwrap();
    assert_eq!(given, demos.with("/type", "orders.created.v1").json);
}
