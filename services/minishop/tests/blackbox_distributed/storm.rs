//! A group that never comes to rest.

use std::time::{Duration, Instant};

use crate::checker::check;
use crate::load::Load;
use crate::shop::Shop;

/// How long the group is shaken, and how often.
const STORM: Duration = Duration::from_mins(2);
const BEAT: Duration = Duration::from_secs(2);
/// Each so many beats a worker is killed instead of asked to leave.
const KILL: usize = 4;

#[test]
fn two_minutes_of_rebalances_keep_effects_once_and_keys_in_order() {
    let shop = Shop::new();
    let apis = [shop.api(), shop.api()];
    let mut workers = [(); 4].map(|()| shop.worker());
    let load = Load::default();
    load.spread(apis.iter().map(|api| api.addr("http")));
    let ((), promises) = load.during(4, || {
        let (began, mut processed) = (Instant::now(), 0);
        for beat in 0.. {
            let next = Instant::now() + BEAT;
            if next > began + STORM {
                break;
            }
            let n = beat % workers.len();
            if beat % KILL == KILL - 1 {
                workers[n].kill();
            } else {
                assert_eq!(workers[n].terminate(), Some(0), "a drain ends with 0");
            }
            workers[n] = shop.worker();
            while let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                std::thread::park_timeout(left);
            }
            if beat % 15 == 14 {
                let now = shop.number("SELECT count(*) FROM orders WHERE status = 'processed'");
                assert!(now > processed, "nothing was processed in fifteen beats");
                processed = now;
            }
        }
    });
    check(&shop, &promises);
    eprintln!("{} orders in the storm", promises.len());
    assert!(promises.len() >= 1_000, "{} orders are no load", promises.len());
    assert_eq!(load.refusals(), [].into(), "an order was refused");
}
