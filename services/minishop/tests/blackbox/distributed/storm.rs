//! A group that rebalances all the time.

use std::time::{Duration, Instant};

use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;

use crate::support::checker::{Ledger as _, check};
use crate::support::load::Load;
use crate::support::passing::passes;
use crate::support::shop::Shop;

/// Length of a storm, their number, and the interval at which a worker is replaced.
const STORM: Duration = Duration::from_secs(42);
const STORMS: usize = 2;
const BEAT: Duration = Duration::from_secs(2);
/// How long one API and one worker are alone: some seconds longer than the leases of the others.
const CALM: Duration = Duration::from_secs(14);
/// Every this many beats a worker is killed instead of drained.
const KILL: usize = 4;

fn leave(process: &mut Process) {
    assert_eq!(process.terminate(), Some(0), "a drain ends with 0");
}

/// Replaces a worker at each beat.
fn shake(shop: &Shop, workers: &mut [Process]) {
    let storm = Instant::now();
    for beat in 0.. {
        let (began, n) = (Instant::now(), beat % workers.len());
        if storm.elapsed() > STORM {
            break;
        }
        if beat % KILL == KILL - 1 {
            workers[n].kill();
        } else {
            leave(&mut workers[n]);
        }
        workers[n] = shop.worker();
        passes(BEAT, began, "the next beat");
    }
}

#[test]
fn two_minutes_of_rebalances_keep_effects_once_and_keys_in_order() {
    let shop = Shop::new();
    let mut apis = [shop.api(), shop.api()];
    let mut workers = [(); 4].map(|()| shop.worker());
    let load = Load::default();
    load.spread(apis.iter().map(|api| api.addr("http")));
    let ((), promises) = load.during(4, || {
        let mut processed = 0;
        for _ in 0..STORMS {
            shake(&shop, &mut workers);
            load.moved(apis[0].addr("http"));
            // Until every client uses the new address.
            let wanted = load.acknowledged() + 50;
            eventually(BEAT * 5, "no client asks the other API", || load.acknowledged() >= wanted);
            leave(&mut apis[1]);
            workers[1..].iter_mut().for_each(leave);
            passes(CALM, Instant::now(), "the calm");
            let now = shop.number("SELECT count(*) FROM orders WHERE status = 'processed'");
            assert!(now > processed, "nothing was processed in a storm and its calm");
            processed = now;
            apis[1] = shop.api();
            load.spread(apis.iter().map(|api| api.addr("http")));
            workers[1..].iter_mut().for_each(|worker| *worker = shop.worker());
        }
    });
    check(&shop, &promises);
    eprintln!("{} orders in the storm", promises.len());
    assert!(promises.len() >= 1_000, "{} orders are no load", promises.len());
    assert_eq!(load.refusals(), [].into(), "an order was refused");
}
