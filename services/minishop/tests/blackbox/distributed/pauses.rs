//! A process is stopped (SIGSTOP) for longer than its leases last, and continues.

use std::time::{Duration, Instant};

use minishop_testkit::blocking::eventually;

use crate::support::by_hand::order;
use crate::support::checker::check;
use crate::support::endpoint::Endpoint;
use crate::support::load::Load;
use crate::support::metrics::counted;
use crate::support::passing::passes;
use crate::support::shop::Shop;

/// A lease lasts ten seconds.
const PAUSE: Duration = Duration::from_secs(14);
const WITHIN: Duration = Duration::from_secs(20);

fn flows(load: &Load, more: usize) {
    let wanted = load.acknowledged() + more;
    eventually(WITHIN, "orders are acknowledged", || load.acknowledged() >= wanted);
}

#[test]
fn an_api_that_stood_still_and_goes_on_keeps_its_customers_order() {
    let shop = Shop::new();
    let mut apis = [shop.api(), shop.api()];
    let _workers = [shop.worker(), shop.worker()];
    let load = Load::default();
    load.moved(apis[1].addr("http"));
    let (mut by_hand, mut promises) = load.during(4, || {
        flows(&load, 100);
        apis[0].signal("STOP");
        passes(PAUSE, Instant::now(), "the API stands still");
        apis[0].signal("CONT");
        let mut promises = Vec::new();
        for n in 0..20 {
            for (at, api) in apis.iter().enumerate() {
                promises.push(order(api, &format!("by-hand-{n}-{at}"), &format!("by-hand-{n}")));
            }
        }
        load.spread(apis.iter().map(|api| api.addr("http")));
        flows(&load, 400);
        promises
    });
    promises.append(&mut by_hand);
    check(&shop, &promises);
}

#[test]
fn a_worker_that_stood_still_and_goes_on_keeps_its_customers_order() {
    let shop = Shop::new();
    let endpoint = Endpoint::start();
    let (apis, mut workers) = ([shop.api(), shop.api()], [shop.worker_that_calls(&endpoint), shop.worker_that_calls(&endpoint)]);
    let load = Load::default();
    load.spread(apis.iter().map(|api| api.addr("http")));
    let ((), promises) = load.during(4, || {
        eventually(WITHIN, "both workers send what the lot has processed", || {
            workers.iter().all(|worker| counted(worker, "minishop_relay_published_total") > 0)
        });
        workers[0].signal("STOP");
        passes(PAUSE, Instant::now(), "the worker stands still");
        workers[0].signal("CONT");
        flows(&load, 1_000);
    });
    check(&shop, &promises);
    assert!(endpoint.fulfilled().len() >= promises.len(), "each order is fulfilled once at least");
}
