//! Nothing goes wrong.

use std::time::Duration;

use minishop_testkit::blocking::eventually;

use crate::support::checker::check;
use crate::support::group::assignments;
use crate::support::load::Load;
use crate::support::metrics::counted;
use crate::support::shop::Shop;

#[test]
fn two_workers_share_the_partitions_and_process_each_order_once() {
    const ORDERS: usize = 300;
    let shop = Shop::new();
    let mut api = shop.api();
    let mut workers = [shop.worker(), shop.worker()];
    let shares = eventually(Duration::from_secs(20), "both workers hold partitions", || {
        let shares = assignments(shop.brokers(), &shop.group());
        (shares.len() == 2 && shares.iter().all(|share| !share.is_empty())).then_some(shares)
    });
    let mut all = shares.concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7], "each partition has one owner");
    let load = Load::default();
    load.moved(api.addr("http"));
    let ((), promises) = load.during(8, || {
        eventually(Duration::from_secs(20), "enough orders are acknowledged", || load.acknowledged() >= ORDERS);
    });
    check(&shop, &promises);
    assert_eq!(load.refusals(), [].into(), "an order was refused");
    let processed = workers.each_ref().map(|worker| counted(worker, "minishop_worker_events_total"));
    assert!(processed.iter().all(|&events| events > 0), "a worker has nothing to do: {processed:?}");
    for process in workers.iter_mut().chain([&mut api]) {
        assert_eq!(process.terminate(), Some(0), "a drain ends with 0");
    }
}
