//! An older copy of the database is restored under running processes, as at a fail-over to a standby that lagged.

use std::collections::HashSet;
use std::time::Duration;

use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;
use serde_json::Value;
use uuid::Uuid;

use crate::support::by_hand::order;
use crate::support::checker::{Ledger as _, settled};
use crate::support::load::Promise;
use crate::support::metrics::counted;
use crate::support::servers::OwnServer;
use crate::support::shop::Shop;

/// Copies the database. All connections are cut, because PostgreSQL copies only an unused database.
fn copy(shop: &Shop) {
    shop.administer("ALTER DATABASE {} ALLOW_CONNECTIONS false");
    shop.administer("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'");
    shop.administer("CREATE DATABASE {}_copy TEMPLATE {}");
    shop.administer("ALTER DATABASE {} ALLOW_CONNECTIONS true");
}

/// Replaces the database by the copy.
fn put_back(shop: &Shop) {
    shop.administer("ALTER DATABASE {} ALLOW_CONNECTIONS false");
    shop.administer("DROP DATABASE {} WITH (FORCE)");
    shop.administer("ALTER DATABASE {}_copy RENAME TO {}");
}

/// Orders for five customers, one after the other.
fn order_five(api: &Process, prefix: &str) -> Vec<Promise> {
    (0..5).map(|n| order(api, &format!("{prefix}-{n}"), &format!("c{n}"))).collect()
}

/// Returns the orders that have an event in a topic.
fn told(shop: &Shop, topic: &str) -> HashSet<Uuid> {
    let order =
        |value: &[u8]| serde_json::from_slice::<Value>(value).unwrap()["data"]["orderId"].as_str().unwrap().parse().unwrap();
    shop.records(topic).iter().map(|record| order(record.value.as_deref().unwrap())).collect()
}

#[test]
fn after_an_older_copy_of_the_database_came_back_every_new_order_is_announced() {
    let server = OwnServer::start("kafka");
    let shop = Shop::on(server.addresses());
    let apis = [shop.api(), shop.api()];
    let _workers = [shop.worker(), shop.worker()];
    let before = order_five(&apis[0], "before");
    settled(&shop);
    copy(&shop);
    server.stop();
    // These are lost with the database that holds them: nothing could keep them.
    order_five(&apis[0], "lost");
    eventually(Duration::from_secs(20), "their events are known to wait", || {
        apis.iter().map(|api| counted(api, "minishop_outbox_rows")).max() == Some(5)
    });
    put_back(&shop);
    let after = order_five(&apis[0], "after");
    server.start_again();
    eventually(Duration::from_secs(30), "the new orders are processed, so they were announced", || {
        shop.number("SELECT count(*) FROM orders WHERE status = 'created'") == 0
    });
    settled(&shop);
    for topic in ["orders.created", "orders.processed"] {
        let told = told(&shop, topic);
        let missing = before.iter().chain(&after).filter(|promise| !told.contains(&promise.order)).count();
        assert_eq!(missing, 0, "acknowledged orders that {topic} does not tell of");
    }
}
