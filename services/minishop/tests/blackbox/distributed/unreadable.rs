//! A batch damaged on the broker's disk. The broker serves it as it is, and the client library silently skips it as soon as
//! a valid one follows.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;
use minishop_testkit::rest::{get, post};

use crate::support::checker::Ledger as _;
use crate::support::servers::OwnServer;
use crate::support::shop::Shop;

const SOON: Duration = Duration::from_secs(30);
const OTHERS: usize = 32;

fn order(api: &Process, customer: &str) {
    let body = format!(r#"{{"customerId":"{customer}","items":[{{"productId":"p1","qty":2,"price":10.5}}]}}"#);
    assert_eq!(post(api.addr("http"), "/orders", &[], &body).status, 201);
}

/// Finds the file with the first records of a partition.
fn segment(below: &Path, partition: &str) -> PathBuf {
    let mut places = vec![below.to_owned()];
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() && entry.ends_with(partition) {
                return entry.join("00000000000000000000.log");
            }
            places.extend(entry.is_dir().then_some(entry));
        }
    }
    panic!("the broker has no {partition}");
}

#[test]
fn a_batch_that_the_disk_has_damaged_is_not_passed_over_and_skipped_only_when_an_operator_says_so() {
    let server = OwnServer::start("kafka");
    let shop = Shop::on(server.addresses());
    let mut api = shop.api();
    order(&api, "damaged");
    let damaged = eventually(SOON, "the event is in the topic", || shop.records("orders.created").pop());
    server.stop();
    let file = segment(server.state(), &format!("{}-{}", shop.topic("orders.created"), damaged.partition));
    let mut bytes = fs::read(&file).unwrap();
    // Behind the batch's header, which the broker itself reads.
    bytes[80] ^= 0xff;
    fs::write(&file, bytes).unwrap();
    server.start_again();
    order(&api, "damaged");
    for n in 0..OTHERS {
        order(&api, &format!("customer-{n}"));
    }
    let all = OTHERS + 1;
    eventually(SOON, "all events are in the topic", || shop.waiting() == 0);
    let mut worker = shop.worker();
    let place = format!("partition {} of {} cannot be read at offset 0", damaged.partition, shop.topic("orders.created"));
    eventually(2 * SOON, "the place is named", || get(worker.addr("admin"), "/readyz?verbose").body.contains(&place));
    let processed = || usize::try_from(shop.number("SELECT count(*) FROM orders WHERE status = 'processed'")).unwrap();
    assert!(processed() < all, "what stands behind it waits");
    let partition = damaged.partition.to_string();
    let words = ["topics", "skip", "--partition", &partition, "--offset", "0", "--reason", "a bad disk", "--operator", "ana"];
    let said = shop.command(&words).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    eventually(SOON, "everything else is processed", || processed() == all);
    assert_eq!(shop.number("SELECT count(*) FROM orders WHERE status = 'created'"), 1);
    assert_eq!(shop.number("SELECT count(*) FROM parked WHERE error_code = 'RECORD_UNREADABLE' AND source_offset = 0"), 1);
    eventually(SOON, "the alarm is taken back", || !get(worker.addr("admin"), "/readyz?verbose").body.contains(&place));
    let again = shop.command(&words).output().unwrap();
    assert_eq!(again.status.code(), Some(1), "the workers are behind it");
    for process in [&mut api, &mut worker] {
        assert_eq!(process.terminate(), Some(0));
    }
}
