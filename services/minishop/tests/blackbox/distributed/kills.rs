//! Repeated kill -9 of every process while clients order.
//!
//! Where a process leads, it publishes its own rows from memory and reads those that others committed. To cover both, the
//! killed processes restart at once for a while, and then one stays away until its leases have expired.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;

use crate::support::checker::check;
use crate::support::load::Load;
use crate::support::metrics::counted;
use crate::support::passing::passes;
use crate::support::shop::Shop;

/// How often the whole sequence runs.
const ROUNDS: usize = 2;
/// Kills in a row after which the process restarts at once, of APIs and of workers.
const API_KILLS: usize = 5;
const WORKER_KILLS: usize = 3;
/// How long the last killed process of a round stays away: its leases expire, and for some seconds the other is alone.
const AWAY: Duration = Duration::from_secs(14);
/// What a process must have done before it is killed: an idle one proves nothing.
const WORK: usize = 20;
/// Timeout for a worker to settle events: the session of a killed worker lasts 6 s, and the wait is longer if others die too.
const LIFE: Duration = Duration::from_mins(1);

/// Kills workers in turn, and returns those that run in the end.
fn kill_workers(shop: &Shop) -> [Process; 2] {
    let mut workers = [shop.worker(), shop.worker()];
    for kill in 0..ROUNDS * (WORKER_KILLS + 1) {
        let n = kill % 2;
        eventually(LIFE, "the worker settles events in this life", || {
            counted(&workers[n], "minishop_worker_events_total") >= WORK as u64
        });
        workers[n].kill();
        if kill % (WORKER_KILLS + 1) == WORKER_KILLS {
            passes(AWAY, Instant::now(), "the other worker is alone");
        }
        workers[n] = shop.worker();
    }
    workers
}

/// Kills APIs in turn while orders are accepted, until no worker is killed any more; returns those that run in the end.
fn kill_apis(shop: &Shop, load: &Load, killing_workers: &AtomicBool) -> [Process; 2] {
    let mut apis = [shop.api(), shop.api()];
    load.spread(apis.iter().map(|api| api.addr("http")));
    for kill in 0.. {
        if kill >= ROUNDS * (API_KILLS + 1) && !killing_workers.load(Ordering::SeqCst) {
            break;
        }
        let (n, before) = (kill % 2, load.acknowledged());
        eventually(LIFE, "orders are acknowledged in this life", || load.acknowledged() >= before + 10 * WORK);
        apis[n].kill();
        if kill % (API_KILLS + 1) == API_KILLS {
            load.moved(apis[1 - n].addr("http"));
            passes(AWAY, Instant::now(), "the other API is alone");
        }
        apis[n] = shop.api();
        load.spread(apis.iter().map(|api| api.addr("http")));
    }
    apis
}

#[test]
fn kill_9_of_every_process_under_load_loses_and_doubles_nothing() {
    /// Clears the flag also on a panic, because the thread of the APIs waits for it.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(false, Ordering::SeqCst);
        }
    }
    let shop = Shop::new();
    let load = Load::default();
    let ((apis, workers), promises) = load.during(4, || {
        let killing_workers = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let workers = scope.spawn(|| {
                let _done = Done(&killing_workers);
                kill_workers(&shop)
            });
            (kill_apis(&shop, &load, &killing_workers), workers.join().unwrap())
        })
    });
    check(&shop, &promises);
    let kills = ROUNDS * (API_KILLS + 1);
    assert!(promises.len() >= kills * 10 * WORK, "{} orders are no load", promises.len());
    assert!(load.refusals().contains_key("no answer"), "no client has noticed: {:?}", load.refusals());
    for mut process in apis.into_iter().chain(workers) {
        assert_eq!(process.terminate(), Some(0), "a drain ends with 0");
    }
}
