//! The relay between a real store and a real event log, both embedded.

use minishop_store::OutboxRow;
use minishop_testkit::log::any_port;

use crate::world::{self, Log, Running, World, emptied, event, numbers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_publishes_a_long_backlog_of_a_key_in_order() {
    let world = World::new().await;
    for start in (0..2_500).step_by(500) {
        world.commit_numbered("c1", start..start + 500).await;
    }
    let log = Log::start().await;
    let running = Running::start(&world, log.addr);
    emptied(&world).await;
    assert_eq!(numbers(&log).await, (0..2_500).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_handed_over_behind_a_backlog_come_after_it_and_once() {
    let world = World::new().await;
    world.commit_numbered("c1", 0..1_200).await;
    let log = Log::start().await;
    let running = Running::start(&world, log.addr);
    for start in (1_200..1_500).step_by(10) {
        running.relay.hand_over(world.commit_numbered("c1", start..start + 10).await);
    }
    emptied(&world).await;
    assert_eq!(numbers(&log).await, (0..1_500).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_nobody_handed_over_is_published() {
    let world = World::new().await;
    let log = Log::start().await;
    let running = Running::start(&world, log.addr);
    running.relay.hand_over(world.commit_numbered("c1", 0..1).await);
    emptied(&world).await;
    world.commit_numbered("c1", 1..2).await;
    emptied(&world).await;
    assert_eq!(numbers(&log).await, [0, 1]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_published_in_the_order_of_their_commits_in_whatever_order_they_are_handed_over() {
    let world = World::new().await;
    let log = Log::start().await;
    let running = Running::start(&world, log.addr);
    running.relay.hand_over(world.commit_numbered("c1", 0..1).await);
    emptied(&world).await;
    for start in (1..301).step_by(30) {
        // Of each thirty, the second ten are never handed over, and the first ten come last and twice.
        let mut parts = Vec::new();
        for part in 0..3 {
            parts.push(world.commit_numbered("c1", start + part * 10..start + part * 10 + 10).await);
        }
        running.relay.hand_over(parts.swap_remove(2));
        let first: Vec<OutboxRow> = parts.swap_remove(0);
        running.relay.hand_over(first.clone());
        running.relay.hand_over(first);
    }
    emptied(&world).await;
    assert_eq!(numbers(&log).await, (0..301).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_a_transaction_that_was_rolled_back_is_never_published() {
    let world = World::new().await;
    let log = Log::start().await;
    let running = Running::start(&world, log.addr);
    running.relay.hand_over(world.commit_numbered("c1", 0..5).await);
    world.roll_back(&[event("c1", 77)]).await;
    running.relay.verify();
    running.relay.hand_over(world.commit_numbered("c1", 5..9).await);
    emptied(&world).await;
    assert_eq!(numbers(&log).await, (0..9).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_before_a_restart_is_not_published_again() {
    let world = World::new().await;
    let log = Log::start().await;
    for start in (0..150).step_by(50) {
        let running = Running::start(&world, log.addr);
        running.relay.hand_over(world.commit_numbered("c1", start..start + 50).await);
        // What was handed over before the drain is published during it.
        running.stop().await;
        assert_eq!(world.waiting().await, 0);
    }
    assert_eq!(numbers(&log).await, (0..150).collect::<Vec<_>>());
    assert_eq!(world.count("outbox_event").await, 1, "of each shard the last row stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_at_the_start_delays_and_loses_nothing() {
    let world = World::new().await;
    let free = std::net::TcpListener::bind(any_port()).expect("a free port").local_addr().expect("an address");
    let running = Running::start(&world, free);
    world.commit_numbered("c1", 0..50).await;
    running.relay.hand_over(world.commit_numbered("c1", 50..100).await);
    assert_eq!(world.waiting().await, 100, "nothing goes before its report");
    let log = Log::start_at(free).await;
    emptied(&world).await;
    assert_eq!(numbers(&log).await, (0..100).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_producer_holds_is_published_in_order_and_nothing_is_lost() {
    // The producer's queue holds 64 MiB.
    const ROWS: usize = 320;
    let world = World::new().await;
    let free = std::net::TcpListener::bind(any_port()).expect("a free port").local_addr().expect("an address");
    let running = Running::start(&world, free);
    for start in (0..ROWS).step_by(32) {
        let events: Vec<_> = (start..start + 32).map(|n| world::sized("c1", n, 250_000)).collect();
        running.relay.hand_over(world.commit(&events).await);
    }
    let log = Log::start_at(free).await;
    emptied(&world).await;
    let records = log.records(world::TOPIC).await;
    assert_eq!(records.iter().map(world::number).collect::<Vec<_>>(), (0..ROWS).collect::<Vec<_>>());
    running.stop().await;
}
