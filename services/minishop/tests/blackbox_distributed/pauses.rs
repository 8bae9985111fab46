//! A process is stopped (SIGSTOP) for longer than its leases last, and continues.

use std::time::{Duration, Instant};

use crate::by_hand::order;
use crate::checker::check;
use crate::endpoint::Endpoint;
use crate::load::Load;
use crate::metrics::counted;
use crate::passing::passes;
use crate::process::Process;
use crate::shop::Shop;
use crate::wait::eventually;

/// A lease lasts ten seconds.
const PAUSE: Duration = Duration::from_secs(14);
const WITHIN: Duration = Duration::from_secs(20);

fn flows(load: &Load, more: usize) {
    let wanted = load.acknowledged() + more;
    eventually(WITHIN, "orders are acknowledged", || (load.acknowledged() >= wanted).then_some(()));
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
    let worker = || {
        let mut command = shop.command(&["worker"]);
        command.envs(endpoint.settings());
        Process::start(command)
    };
    let (apis, mut workers) = ([shop.api(), shop.api()], [worker(), worker()]);
    let load = Load::default();
    load.spread(apis.iter().map(|api| api.addr("http")));
    let ((), promises) = load.during(4, || {
        eventually(WITHIN, "both workers send what the lot has processed", || {
            workers.iter().all(|worker| counted(worker, "minishop_relay_published_total") > 0).then_some(())
        });
        workers[0].signal("STOP");
        passes(PAUSE, Instant::now(), "the worker stands still");
        workers[0].signal("CONT");
        flows(&load, 1_000);
    });
    check(&shop, &promises);
    assert!(endpoint.fulfilled().len() >= promises.len(), "each order is fulfilled once at least");
}
