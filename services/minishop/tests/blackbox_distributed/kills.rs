//! kill -9 of every process, again and again, while clients order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::checker::check;
use crate::load::Load;
use crate::metrics::counted;
use crate::process::Process;
use crate::shop::Shop;
use crate::wait::eventually;

/// Kills of each process at least.
const KILLS: usize = 10;
/// What a process must have done in its life before it is killed: one that has not begun proves nothing.
const WORK: usize = 20;
/// A worker waits for its partitions until the group has forgotten the one that was killed: 6 s, and more if others die too.
const LIFE: Duration = Duration::from_mins(1);

/// Kills and restarts a worker that has work to do, and returns its last life.
fn kill_worker(shop: &Shop) -> Process {
    let mut worker = shop.worker();
    for _ in 0..KILLS {
        eventually(LIFE, "the worker settles events in this life", || {
            (counted(&worker, "minishop_worker_events_total") >= WORK as u64).then_some(())
        });
        worker.kill();
        worker = shop.worker();
    }
    worker
}

/// Kills and restarts the API while orders are accepted, until no worker is killed any more.
fn kill_api(shop: &Shop, load: &Load, workers: &AtomicUsize) -> (Process, usize) {
    let mut api = shop.api();
    load.moved(api.addr("http"));
    let mut kills = 0;
    while kills < KILLS || workers.load(Ordering::SeqCst) > 0 {
        let before = load.acknowledged();
        eventually(LIFE, "orders are acknowledged in this life", || (load.acknowledged() >= before + 10 * WORK).then_some(()));
        api.kill();
        kills += 1;
        api = shop.api();
        load.moved(api.addr("http"));
    }
    (api, kills)
}

#[test]
fn kill_9_of_every_process_under_load_loses_and_doubles_nothing() {
    let shop = Shop::new();
    let load = Load::default();
    let (processes, promises) = load.during(4, || {
        let alive = AtomicUsize::new(2);
        std::thread::scope(|scope| {
            let (shop, load, alive) = (&shop, &load, &alive);
            let workers = [(); 2].map(|()| {
                scope.spawn(move || {
                    // Also when it fails: the API's thread waits for it.
                    let _guard = CountDown(alive);
                    kill_worker(shop)
                })
            });
            let (api, kills) = kill_api(shop, load, alive);
            assert!(kills >= KILLS);
            (api, workers.map(|worker| worker.join().unwrap()))
        })
    });
    check(&shop, &promises);
    assert!(promises.len() >= KILLS * 10 * WORK, "{} orders are no load", promises.len());
    assert!(load.refusals().contains_key("no answer"), "no client has noticed: {:?}", load.refusals());
    let (mut api, mut workers) = processes;
    for process in workers.iter_mut().chain([&mut api]) {
        assert_eq!(process.terminate(), Some(0), "a drain ends with 0");
    }
}

struct CountDown<'a>(&'a AtomicUsize);

impl Drop for CountDown<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
