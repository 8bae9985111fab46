//! A server is stopped while clients order, and starts again.

use std::time::{Duration, Instant};

use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;
use minishop_testkit::rest::get;

use crate::support::checker::{Ledger as _, check};
use crate::support::load::Load;
use crate::support::metrics::counted;
use crate::support::passing::passes;
use crate::support::servers::OwnServer;
use crate::support::shop::Shop;

/// Longer than a lease: after the outage no process from before it holds one.
const OUTAGE: Duration = Duration::from_secs(12);
/// Timeout for everything to work again after an outage.
const RECOVERY: Duration = Duration::from_secs(20);
/// Number of acknowledged orders that shows that orders flow.
const FLOW: usize = 100;

fn flows(load: &Load, within: Duration) {
    let before = load.acknowledged();
    eventually(within, "orders are acknowledged", || load.acknowledged() >= before + FLOW);
}

fn ready(process: &Process) -> bool {
    get(process.addr("admin"), "/readyz").status == 200
}

fn become_ready(processes: &[Process]) {
    eventually(RECOVERY, "every process is ready", || processes.iter().all(ready));
}

/// Drains the processes from before the outage: none was restarted.
fn drain(processes: Vec<Process>) {
    for mut process in processes {
        assert_eq!(process.terminate(), Some(0), "a drain ends with 0");
    }
}

#[test]
fn while_postgresql_is_away_clients_hear_503_and_nothing_is_lost() {
    let server = OwnServer::start("postgres");
    let shop = Shop::on(server.addresses());
    let processes = vec![shop.api(), shop.api(), shop.worker(), shop.worker()];
    let load = Load::default();
    // A customer's next order goes to the other API as soon as the previous one is answered.
    load.spread(processes[..2].iter().map(|api| api.addr("http")));
    let ((), promises) = load.during(6, || {
        flows(&load, RECOVERY);
        assert_eq!(load.refusals(), [].into(), "refused before the outage");
        become_ready(&processes);
        let began = Instant::now();
        server.stop();
        let during = load.acknowledged();
        eventually(OUTAGE, "no process says that it is ready", || !processes.iter().any(ready));
        passes(OUTAGE, began, "the outage lasts");
        // Each client may have had one more in flight.
        assert!(load.acknowledged() <= during + 6, "acknowledged without a database");
        server.start_again();
        flows(&load, RECOVERY);
        become_ready(&processes);
        flows(&load, RECOVERY);
    });
    let refusals = load.refusals();
    let clear = |refusal: &String| matches!(refusal.as_str(), "503 STORE_UNAVAILABLE" | "503 OUTCOME_UNKNOWN");
    assert!(refusals.keys().all(clear) && refusals.contains_key("503 STORE_UNAVAILABLE"), "{refusals:?}");
    check(&shop, &promises);
    drain(processes);
}

#[test]
fn while_kafka_is_away_orders_are_accepted_and_follow_later() {
    let server = OwnServer::start("kafka");
    let shop = Shop::on(server.addresses());
    let processes = vec![shop.api(), shop.api(), shop.worker(), shop.worker()];
    let load = Load::default();
    // A customer's next order goes to the other API as soon as the previous one is answered.
    load.spread(processes[..2].iter().map(|api| api.addr("http")));
    let (waiting, promises) = load.during(2, || {
        flows(&load, RECOVERY);
        become_ready(&processes);
        server.stop();
        let began = Instant::now();
        passes(OUTAGE, began, "the outage lasts");
        flows(&load, Duration::from_secs(2));
        let waiting = shop.waiting();
        server.start_again();
        flows(&load, Duration::from_secs(2));
        waiting
    });
    assert_eq!(load.refusals(), [].into(), "the outage of the event log is no client's business");
    assert!(waiting >= i64::try_from(FLOW).unwrap(), "only {waiting} events waited for the event log");
    check(&shop, &promises);
    become_ready(&processes);
    drain(processes);
}

#[test]
fn while_redis_is_away_only_the_metrics_tell() {
    let server = OwnServer::start("redis");
    let shop = Shop::on(server.addresses());
    // Two of a role, because a process needs another one to send hints to.
    let processes = vec![shop.api(), shop.api(), shop.worker()];
    let sum = |name| processes.iter().map(|process| counted(process, name)).sum::<u64>();
    let hints = || sum("minishop_redis_hints_received_total");
    let load = Load::default();
    load.moved(processes[0].addr("http"));
    let ((), promises) = load.during(4, || {
        flows(&load, RECOVERY);
        eventually(RECOVERY, "hints are heard", || hints() > 0);
        assert_eq!(sum("minishop_redis_breaker_open"), 0, "given up before the outage");
        server.stop();
        eventually(RECOVERY, "the metrics tell", || sum("minishop_redis_breaker_open") > 0);
        flows(&load, Duration::from_secs(2));
        assert!(processes.iter().all(ready), "a process that needs Redis");
        server.start_again();
        let before = hints();
        eventually(RECOVERY, "hints are heard again", || hints() > before);
    });
    assert_eq!(load.refusals(), [].into(), "a client has noticed");
    check(&shop, &promises);
    drain(processes);
}
