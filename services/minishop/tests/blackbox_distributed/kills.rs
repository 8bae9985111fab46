//! kill -9 of every process, again and again, while clients order.
//!
//! A process sends what it has committed from memory where it leads, and reads what others have committed. So that both happen,
//! the dead come back at once for a while, and then one stays away until its leases have run out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::checker::check;
use crate::load::Load;
use crate::metrics::counted;
use crate::passing::passes;
use crate::process::Process;
use crate::shop::Shop;
use crate::wait::eventually;

/// How often all that follows is done.
const ROUNDS: usize = 2;
/// Kills in a row whose victims come back at once, of APIs and of workers.
const API_KILLS: usize = 5;
const WORKER_KILLS: usize = 3;
/// How long the last victim of a round stays away: its leases have run out, and for some seconds the other is alone.
const AWAY: Duration = Duration::from_secs(14);
/// What a process must have done in its life before it is killed: one that has not begun proves nothing.
const WORK: usize = 20;
/// A worker waits for its partitions until the group has forgotten the one that was killed: 6 s, and more if others die too.
const LIFE: Duration = Duration::from_mins(1);

/// Kills workers by turns, and returns those that run in the end.
fn kill_workers(shop: &Shop) -> [Process; 2] {
    let mut workers = [shop.worker(), shop.worker()];
    for kill in 0..ROUNDS * (WORKER_KILLS + 1) {
        let n = kill % 2;
        eventually(LIFE, "the worker settles events in this life", || {
            (counted(&workers[n], "minishop_worker_events_total") >= WORK as u64).then_some(())
        });
        workers[n].kill();
        if kill % (WORKER_KILLS + 1) == WORKER_KILLS {
            passes(AWAY, Instant::now(), "the other worker is alone");
        }
        workers[n] = shop.worker();
    }
    workers
}

/// Kills APIs by turns while orders are accepted, until no worker is killed any more; returns those that run in the end.
fn kill_apis(shop: &Shop, load: &Load, killing_workers: &AtomicBool) -> [Process; 2] {
    let mut apis = [shop.api(), shop.api()];
    load.spread(apis.iter().map(|api| api.addr("http")));
    for kill in 0.. {
        if kill >= ROUNDS * (API_KILLS + 1) && !killing_workers.load(Ordering::SeqCst) {
            break;
        }
        let (n, before) = (kill % 2, load.acknowledged());
        eventually(LIFE, "orders are acknowledged in this life", || (load.acknowledged() >= before + 10 * WORK).then_some(()));
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
    /// Says so also when it fails: the thread of the APIs waits for it.
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
