//! Connections to PostgreSQL are cut, also between a commit and its answer.

use std::process::Command;
use std::time::{Duration, Instant};

use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;

use crate::support::by_hand::order;
use crate::support::checker::check;
use crate::support::load::Load;
use crate::support::passing::passes;
use crate::support::proxy::Proxy;
use crate::support::shop::Shop;

/// Length of each phase of cuts, and the interval of the cuts.
const CUTTING: Duration = Duration::from_secs(10);
const BEAT: Duration = Duration::from_millis(300);

/// Returns the command of an API whose database connections go through a proxy.
fn api_behind(shop: &Shop, proxy: &Proxy) -> Command {
    let mut command = shop.command(&["api"]);
    command.env("DATABASE_URL", shop.url().replace(shop.database_address(), proxy.address()));
    command
}

#[test]
fn an_order_whose_commit_lost_its_answer_comes_before_its_customers_next() {
    let shop = Shop::new();
    let proxy = Proxy::before(shop.database_address());
    let first = Process::start(api_behind(&shop, &proxy));
    let _workers = [shop.worker(), shop.worker()];
    let mut promises = Vec::new();
    let mut lose = |round: &str, next: &Process| {
        for n in 0..3 {
            let (key, customer) = (format!("lost-{round}-{n}"), format!("c{round}{n}"));
            proxy.lose_answer(&key);
            promises.push(order(&first, &key, &customer));
            assert!(proxy.has_lost_it(), "the commit was answered");
            promises.push(order(next, &format!("next-{round}-{n}"), &customer));
        }
    };
    // First there is no other API; then the next order goes to another one.
    lose("alone", &first);
    let second = shop.api();
    lose("both", &second);
    check(&shop, &promises);
}

/// Cuts all database connections of the shop repeatedly.
fn cut(shop: &Shop) {
    let began = Instant::now();
    while began.elapsed() < CUTTING {
        shop.administer("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'");
        passes(BEAT, Instant::now(), "the next cut");
    }
}

#[test]
fn while_connections_are_cut_again_and_again_nothing_is_lost_or_reordered() {
    let shop = Shop::new();
    // First one process of each role, which publishes from memory what it has committed; then two.
    let mut processes = vec![shop.api(), shop.worker()];
    let load = Load::default();
    load.moved(processes[0].addr("http"));
    let ((), promises) = load.during(6, || {
        eventually(Duration::from_secs(20), "orders flow", || load.acknowledged() > 100);
        cut(&shop);
        processes.extend([shop.api(), shop.worker()]);
        load.spread([processes[0].addr("http"), processes[2].addr("http")]);
        cut(&shop);
    });
    let refusals = load.refusals();
    let clear = |refusal: &String| matches!(refusal.as_str(), "503 STORE_UNAVAILABLE" | "503 OUTCOME_UNKNOWN");
    assert!(refusals.keys().all(clear), "{refusals:?}");
    assert!(promises.len() > 500, "{} orders are no load", promises.len());
    check(&shop, &promises);
}
