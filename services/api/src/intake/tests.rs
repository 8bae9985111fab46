//! The intake against a scripted store.

mod bench;

use std::time::Duration;

use minishop_core::idempotency::IdempotencyKey;
use minishop_core::refusal::Code;
use minishop_store::error::SyncFailed;
use tokio::time::Instant;

use bench::{Bench, Fault, code, order_of};

#[tokio::test]
async fn everything_that_waits_goes_into_one_statement_and_to_the_relay_before_its_answer() {
    let mut bench = Bench::new();
    let answers: Vec<_> = (0..10).rev().map(|n| bench.submit(&format!("k{n}"), 1)).collect();
    assert!(bench.writer.step().await);
    assert_eq!(bench.statements(), [10]);
    let handed: Vec<i64> = bench.handed.lock().unwrap().iter().map(|row| row.number).collect();
    assert_eq!(handed, (1..=10).collect::<Vec<_>>());
    for answer in answers {
        assert_eq!(answer.await.map(|a| a.replayed), Ok(false));
    }
    assert!(!bench.writer.step().await, "nothing is left");
}

#[tokio::test]
async fn the_same_key_in_flight_waits_for_the_first_and_then_replays() {
    let mut bench = Bench::new();
    let (first, second) = (bench.submit("k", 1), bench.submit("k", 1));
    bench.writer.step().await;
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.order_id, first.replayed, second.replayed), (second.order_id, false, true));
    assert_eq!(bench.statements(), [1]);
}

#[tokio::test]
async fn another_command_under_a_key_in_flight_is_refused_at_once() {
    let bench = Bench::new();
    let _first = bench.submit("k", 1);
    let second = bench.submit("k", 2).await;
    assert_eq!(code(&second), Some(Code::IdempotencyKeyReused), "without a writer having run");
}

#[tokio::test]
async fn a_follower_stops_waiting_after_two_seconds() {
    let bench = Bench::new();
    let _first = bench.submit("k", 1);
    let started = Instant::now();
    let refusal = bench.submit("k", 1).await.unwrap_err();
    assert_eq!(refusal.code, Code::IdempotencyKeyInFlight);
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert!(refusal.retry_after.is_some());
}

#[tokio::test]
async fn a_key_that_exists_is_replayed_or_refused_by_its_fingerprint() {
    let mut bench = Bench::new();
    let first = bench.submit("k", 1);
    bench.writer.step().await;
    let first = first.await.unwrap();
    let (same, other) = (bench.submit("k", 1), bench.submit("k", 2));
    bench.writer.step().await;
    let same = same.await.unwrap();
    assert_eq!((same.order_id, same.replayed), (first.order_id, true));
    assert_eq!(code(&other.await), Some(Code::IdempotencyKeyReused));
    let later = bench.submit("k", 2);
    bench.writer.step().await;
    assert_eq!(code(&later.await), Some(Code::IdempotencyKeyReused));
    assert_eq!(bench.handed.lock().unwrap().len(), 1, "one order, one event");
}

#[tokio::test]
async fn one_bad_row_fails_alone() {
    let mut bench = Bench::new();
    bench.store.0.lock().unwrap().poison.push(IdempotencyKey::parse("k3").unwrap());
    let answers: Vec<_> = (0..8).map(|n| bench.submit(&format!("k{n}"), 1)).collect();
    bench.writer.step().await;
    let mut codes = Vec::new();
    for answer in answers {
        codes.push(code(&answer.await));
    }
    let expected: Vec<_> = (0..8).map(|n| (n == 3).then_some(Code::Internal)).collect();
    assert_eq!(codes, expected);
    assert_eq!(bench.handed.lock().unwrap().len(), 7);
}

#[tokio::test]
async fn an_unknown_outcome_is_found_out_with_the_same_ids_and_is_no_replay() {
    let mut bench = Bench::new();
    bench.store.0.lock().unwrap().faults.push_back(Fault::LostAnswer);
    let answer = bench.submit("k", 1);
    bench.writer.step().await;
    assert_eq!(answer.await.map(|a| a.replayed), Ok(false));
    let book = bench.store.0.lock().unwrap();
    assert_eq!((book.records.len(), book.connections), (1, 2), "looked for on another connection");
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_is_looked_for_until_the_deadline_and_called_so() {
    let mut bench = Bench::new();
    let faults = std::iter::once(Fault::LostAnswer).chain(std::iter::repeat_n(Fault::Retry, 10_000));
    bench.store.0.lock().unwrap().faults.extend(faults);
    let deadline = Instant::now() + Duration::from_secs(1);
    let ticket = bench.queue.submit(bench.order("k", 1), deadline).unwrap();
    let (outcome, _) = tokio::join!(ticket.outcome(), bench.writer.step());
    assert_eq!(code(&outcome), Some(Code::OutcomeUnknown));
    assert!(deadline.duration_since(Instant::now()) < Duration::from_millis(100), "not before its time");
    assert!(bench.statements().len() > 4);
}

#[tokio::test]
async fn orders_in_doubt_hold_up_no_others() {
    let bench = Bench::new();
    bench.store.0.lock().unwrap().faults.extend([Fault::LostAnswer, Fault::Retry, Fault::Retry, Fault::Retry]);
    let first = bench.submit("in doubt", 1);
    let (queue, writer) = (bench.queue.clone(), bench.writer.run());
    let asking = async {
        let away = queue.submit(order_of(&bench.ids, "meanwhile", 1), Instant::now() + Duration::from_mins(1));
        let away = away.unwrap().outcome().await;
        let first = first.await;
        queue.close();
        (away, first)
    };
    let (ended, (away, first)) = tokio::join!(writer, asking);
    assert!(ended.is_ok());
    assert!(away.is_ok() || code(&away) == Some(Code::StoreUnavailable), "{away:?}");
    assert_eq!(first.map(|a| a.replayed), Ok(false));
}

#[tokio::test]
async fn a_key_that_another_transaction_holds_fails_alone_after_two_seconds() {
    let mut bench = Bench::new();
    bench.store.0.lock().unwrap().held.push(IdempotencyKey::parse("k3").unwrap());
    let answers: Vec<_> = (0..8).map(|n| bench.submit(&format!("k{n}"), 1)).collect();
    let started = Instant::now();
    bench.writer.step().await;
    let waited = started.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(3)).contains(&waited), "{waited:?}");
    let mut codes = Vec::new();
    for answer in answers {
        codes.push(code(&answer.await));
    }
    let expected: Vec<_> = (0..8).map(|n| (n == 3).then_some(Code::IdempotencyKeyInFlight)).collect();
    assert_eq!(codes, expected);
    assert_eq!(bench.store.0.lock().unwrap().connections, 1, "the connection is sound");
}

#[tokio::test]
async fn a_key_that_is_let_go_in_time_is_taken() {
    let mut bench = Bench::new();
    bench.store.0.lock().unwrap().faults.extend([Fault::Held; 4]);
    let answer = bench.submit("k", 1);
    bench.writer.step().await;
    assert_eq!(answer.await.map(|a| a.replayed), Ok(false));
}

#[tokio::test]
async fn a_disk_that_does_not_sync_ends_the_writer() {
    let bench = Bench::new();
    bench.store.0.lock().unwrap().faults.push_back(Fault::NoSync);
    let answer = bench.submit("k", 1);
    let error = bench.writer.run().await.unwrap_err();
    assert!(error.chain().any(<dyn std::error::Error>::is::<SyncFailed>), "{error:?}");
    assert_eq!(code(&answer.await), Some(Code::OutcomeUnknown));
}

#[tokio::test]
async fn a_store_that_is_away_refuses_and_the_key_is_free_again() {
    let mut bench = Bench::new();
    bench.store.0.lock().unwrap().faults.extend([Fault::Retry; 3]);
    let answer = bench.submit("k", 1);
    bench.writer.step().await;
    assert_eq!(code(&answer.await), Some(Code::StoreUnavailable));
    let again = bench.submit("k", 2);
    bench.writer.step().await;
    assert_eq!(again.await.map(|a| a.replayed), Ok(false));
}

#[tokio::test]
async fn an_expired_order_is_dropped_before_its_statement_and_its_follower_takes_over() {
    let mut bench = Bench::new();
    let soon = Instant::now() + Duration::from_millis(10);
    let first = bench.queue.submit(bench.order("k", 1), soon).unwrap();
    let second = bench.submit("k", 1);
    tokio::time::sleep_until(soon).await; // sleeps: the deadline must pass
    bench.writer.step().await;
    assert_eq!(code(&first.outcome().await), Some(Code::DeadlineExceeded));
    assert!(bench.statements().is_empty());
    bench.writer.step().await;
    assert_eq!(second.await.map(|a| a.replayed), Ok(false));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_nothing() {
    let mut bench = Bench::new();
    drop(bench.submit("k", 1));
    bench.writer.step().await;
    assert_eq!(bench.handed.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_queue_sheds_at_once_and_a_past_deadline_is_no_work() {
    let bench = Bench::new();
    let held: Vec<_> = (0..4096).map(|n| bench.submit(&format!("k{n}"), 1)).collect();
    let refusal = bench.submit("one more", 1).await.unwrap_err();
    assert_eq!((refusal.code, refusal.retry_after.is_some()), (Code::Overloaded, true));
    let late = bench.queue.submit(bench.order("late", 1), Instant::now());
    assert_eq!(late.err().map(|r| r.code), Some(Code::DeadlineExceeded));
    drop(held);
}

#[tokio::test]
async fn a_deadline_that_the_queue_cannot_meet_is_shed_before_any_work() {
    let bench = Bench::new();
    let held = bench.submit("first", 1);
    assert_eq!(bench.queue.take_now().map(|batch| batch.len()), Some(1));
    bench.queue.done(Duration::from_millis(400));
    assert!(
        bench.queue.submit(bench.order("idle", 1), Instant::now() + Duration::from_millis(5)).is_ok(),
        "an idle queue promises nothing"
    );
    let _busy = bench.queue.take_now();
    let refusal = bench.queue.submit(bench.order("late", 1), Instant::now() + Duration::from_millis(5)).err();
    assert_eq!(refusal.map(|r| (r.code, r.retry_after.is_some())), Some((Code::Overloaded, true)));
    assert!(bench.queue.submit(bench.order("patient", 1), Instant::now() + Duration::from_secs(5)).is_ok());
    drop(held);
}

#[tokio::test]
async fn a_second_writer_starts_only_for_a_full_enough_queue() {
    let bench = Bench::new();
    let mut answers = vec![bench.submit("first", 1)];
    let first = bench.queue.take_now().unwrap();
    answers.extend((0..31).map(|n| bench.submit(&format!("k{n}"), 1)));
    assert!(bench.queue.take_now().is_none(), "31 wait");
    answers.push(bench.submit("k31", 1));
    assert_eq!(bench.queue.take_now().map(|batch| batch.len()), Some(32));
    drop((first, answers));
}

#[tokio::test]
async fn a_closed_queue_is_emptied_and_its_writer_ends() {
    let bench = Bench::new();
    let answer = bench.submit("k", 1);
    bench.queue.close();
    assert_eq!(code(&bench.submit("late", 1).await), Some(Code::ShuttingDown));
    bench.writer.run().await.unwrap();
    assert!(answer.await.is_ok());
}

#[tokio::test]
async fn rows_of_an_unknown_outcome_are_never_handed_over() {
    let mut bench = Bench::new();
    bench.store.0.lock().unwrap().faults.push_back(Fault::LostAnswer);
    let answer = bench.submit("k", 1);
    bench.writer.step().await;
    assert_eq!(answer.await.map(|a| a.replayed), Ok(false));
    // Only the loss of the connection.
    assert_eq!(*bench.told.lock().unwrap(), [None]);
}

#[tokio::test]
async fn a_lost_connection_is_told_to_the_relay_before_any_later_rows() {
    let mut bench = Bench::new();
    bench.store.0.lock().unwrap().faults.push_back(Fault::Retry);
    let answer = bench.submit("k", 1);
    bench.writer.step().await;
    assert!(answer.await.is_ok());
    assert_eq!(*bench.told.lock().unwrap(), [None, Some(1)]);
}

#[tokio::test]
async fn a_key_that_is_held_is_no_doubt_about_the_store() {
    let mut bench = Bench::new();
    bench.store.0.lock().unwrap().faults.extend([Fault::Held; 2]);
    let answer = bench.submit("k", 1);
    bench.writer.step().await;
    assert!(answer.await.is_ok());
    assert_eq!(*bench.told.lock().unwrap(), [Some(1)]);
}
