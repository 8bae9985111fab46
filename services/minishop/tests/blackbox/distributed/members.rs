//! Workers that die, return or leave: how soon others read their partitions.

use std::time::Duration;

use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;
use minishop_testkit::rest::post;

use crate::support::checker::Ledger as _;
use crate::support::group::assignments;
use crate::support::shop::Shop;

/// Orders of as many customers, so that each of the eight partitions gets some.
const ORDERS: usize = 64;
/// Timeout for the group to become stable before a test begins.
const SETTLED: Duration = Duration::from_secs(30);

/// Starts a worker with the default session timeout, as an operator would, and with an instance id if `name` is given.
fn worker(shop: &Shop, name: Option<&str>) -> Process {
    let mut command = shop.command(&["worker"]);
    command.env_remove("MINISHOP_KAFKA_SESSION_TIMEOUT");
    command.envs(name.map(|name| ("MINISHOP_KAFKA_INSTANCE_ID", name)));
    Process::start(command)
}

/// Waits until the group has this many members with equal shares of the partitions.
fn shared_by(shop: &Shop, members: usize, within: Duration) {
    eventually(within, "the members share the partitions", || {
        let shares = assignments(shop.brokers(), &shop.group());
        shares.len() == members && shares.iter().all(|share| share.len() == 8 / members)
    });
}

/// Orders for many customers, and waits until all orders are processed.
fn orders_flow(shop: &Shop, api: &Process, round: usize, within: Duration) {
    for n in 0..ORDERS {
        let body = format!(r#"{{"customerId":"customer-{round}-{n}","items":[{{"productId":"p1","qty":2,"price":10.5}}]}}"#);
        assert_eq!(post(api.addr("http"), "/orders", &[], &body).status, 201);
    }
    let expected = i64::try_from((round + 1) * ORDERS).unwrap();
    eventually(within, "everything is processed", || {
        shop.number("SELECT count(*) FROM orders WHERE status = 'processed'") == expected
    });
}

#[test]
fn a_worker_that_is_killed_and_comes_back_under_its_name_reads_on_at_once() {
    let shop = Shop::new();
    let api = shop.api();
    let _other = worker(&shop, Some("worker-2"));
    let mut first = worker(&shop, Some("worker-1"));
    shared_by(&shop, 2, SETTLED);
    orders_flow(&shop, &api, 0, SETTLED);
    for round in 1..=4 {
        first.kill();
        first = worker(&shop, Some("worker-1"));
        orders_flow(&shop, &api, round, Duration::from_secs(5));
    }
    shared_by(&shop, 2, Duration::from_secs(5));
    assert_eq!(first.terminate(), Some(0));
}

#[test]
fn what_a_killed_worker_has_read_is_read_by_another_one_within_fifteen_seconds() {
    let shop = Shop::new();
    let api = shop.api();
    let mut round = 0;
    for names in [[None, None], [Some("worker-1"), Some("worker-2")]] {
        let [mut first, mut second] = names.map(|name| worker(&shop, name));
        shared_by(&shop, 2, SETTLED);
        orders_flow(&shop, &api, round, SETTLED);
        first.kill();
        orders_flow(&shop, &api, round + 1, Duration::from_secs(15));
        assert_eq!(second.terminate(), Some(0));
        round += 2;
    }
}

#[test]
fn a_worker_with_a_name_that_ends_orderly_leaves_the_group() {
    let shop = Shop::new();
    let api = shop.api();
    let mut workers = ["worker-1", "worker-2"].map(|name| worker(&shop, Some(name)));
    shared_by(&shop, 2, SETTLED);
    assert_eq!(workers[0].terminate(), Some(0));
    // Sooner than its session would have expired.
    shared_by(&shop, 1, Duration::from_secs(5));
    orders_flow(&shop, &api, 0, Duration::from_secs(5));
    assert_eq!(workers[1].terminate(), Some(0));
    assert!(assignments(shop.brokers(), &shop.group()).is_empty(), "the last one has left too");
}

#[test]
fn of_two_workers_under_one_name_the_first_ends_with_70() {
    let shop = Shop::new();
    let api = shop.api();
    let mut first = worker(&shop, Some("worker-1"));
    shared_by(&shop, 1, SETTLED);
    let second = worker(&shop, Some("worker-1"));
    assert_eq!(first.ended(), Some(70));
    let said = first.said();
    assert!(said.contains("another worker was started under the name `worker-1`"), "{said}");
    orders_flow(&shop, &api, 0, Duration::from_secs(15));
    drop(second);
}
