//! SIGTERM of an API and of a worker while clients order.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;
use minishop_testkit::rest::get;

use crate::support::checker::{Ledger as _, check};
use crate::support::group::assignments;
use crate::support::load::Load;
use crate::support::shop::Shop;

/// Starts a process without the settings that make other tests quick, as an operator would run it.
fn as_shipped(mut command: Command) -> Process {
    command.env_remove("MINISHOP_KAFKA_SESSION_TIMEOUT").env_remove("MINISHOP_DRAIN_WAIT");
    Process::start(command)
}

fn flows(load: &Load) {
    let wanted = load.acknowledged() + 200;
    eventually(Duration::from_secs(20), "orders are acknowledged", || load.acknowledged() >= wanted);
}

#[test]
fn sigterm_under_load_drains_each_role_and_loses_nothing() {
    let shop = Shop::new();
    let [mut api, mut next_api] = [(); 2].map(|()| as_shipped(shop.command(&["api"])));
    let [mut worker, mut next_worker] = [(); 2].map(|()| as_shipped(shop.command(&["worker"])));
    let load = Load::default();
    load.moved(api.addr("http"));
    let ((), promises) = load.during(4, || {
        let busy = || assignments(shop.brokers(), &shop.group()).iter().filter(|share| !share.is_empty()).count();
        eventually(Duration::from_secs(20), "both workers hold partitions", || busy() == 2);
        flows(&load);
        assert_eq!(api.terminate(), Some(0), "the API's drain ends with 0");
        load.moved(next_api.addr("http"));
        flows(&load);
        assert_eq!(worker.terminate(), Some(0), "the worker's drain ends with 0");
        // Well before its session would expire, because it has left the group.
        eventually(Duration::from_secs(8), "the other worker holds all partitions", || {
            let shares = assignments(shop.brokers(), &shop.group());
            shares.len() == 1 && shares[0].len() == 8
        });
        flows(&load);
    });
    let refusals = load.refusals();
    assert!(refusals.keys().all(|r| r == "no answer" || r == "503 SHUTTING_DOWN"), "{refusals:?}");
    assert!(!refusals.is_empty(), "no client was there to be drained");
    check(&shop, &promises);
    for process in [&mut next_api, &mut next_worker] {
        assert_eq!(process.terminate(), Some(0));
    }
}

#[test]
fn a_request_that_was_on_its_way_is_answered_by_the_drain() {
    const BODY: &str = r#"{"customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5}]}"#;
    let shop = Shop::new();
    let mut api = shop.api();
    let http = api.addr("http").to_owned();
    let mut connection = TcpStream::connect(&http).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let length = BODY.len();
    let head = format!(
        "POST /orders HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n"
    );
    connection.write_all(format!("{head}\r\n{}", &BODY[..length / 2]).as_bytes()).unwrap();
    // A later request on another connection is answered, so the first one has been accepted.
    assert_eq!(get(&http, "/orders/none").status, 400);
    api.ask_to_end();
    eventually(Duration::from_secs(15), "the API listens no more", || TcpStream::connect(&http).is_err());
    connection.write_all(&BODY.as_bytes()[length / 2..]).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(api.ended(), Some(0));
    assert_eq!(shop.number("SELECT count(*) FROM orders"), 1);
}
