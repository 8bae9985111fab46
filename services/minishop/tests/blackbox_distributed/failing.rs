//! What fails, and how it is repaired.

use crate::endpoint::Endpoint;
use crate::process::Process;
use crate::repair::{self, Place};
use crate::shop::Shop;

#[test]
fn a_failing_customer_waits_and_is_repaired_in_order() {
    let shop = Shop::new();
    let endpoint = Endpoint::start();
    let worker = || {
        let mut command = shop.command(&["worker"]);
        command.envs(endpoint.settings());
        Process::start(command)
    };
    let (api, mut workers) = (shop.api(), [worker(), worker()]);
    let place = Place { http: api.addr("http"), brokers: shop.brokers(), prefix: shop.topic(""), endpoint: endpoint.clone() };
    repair::a_failing_customer_waits_and_is_repaired_in_order(&place);
    for worker in &mut workers {
        assert_eq!(worker.terminate(), Some(0), "a drain ends with 0");
    }
}
