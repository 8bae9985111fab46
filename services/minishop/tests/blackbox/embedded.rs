//! The real binary on embedded parts: the demo's request, clients in other languages, the drain, and kill -9 under load.

mod clients;
mod full_disk;
mod ledger;
mod operating;

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;
use minishop_testkit::rest::{get, post};
use minishop_testkit::topics::events;
use serde_json::Value;

use crate::support::checker::check;
use crate::support::load::Load;
use crate::support::place::minishop;
use ledger::Embedded;

const ORDER: &str = r#"{"customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5}]}"#;

/// Returns the command of `minishop up` on embedded parts below `dir`.
fn up(dir: &Path) -> Command {
    let mut command = minishop(&["up"]);
    command.env("MINISHOP_DATA_DIR", dir.join("data"));
    command
}

/// Reads all values of a topic from its beginning.
fn topic(server: &Process, name: &str) -> Vec<Value> {
    events(server.addr("kafka"), name)
}

#[test]
fn the_demos_request_is_answered_published_and_processed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::start(up(dir.path()));
    let headers = [("x-correlation-id", "corr-001"), ("x-idempotency-key", "order-c1-001")];
    let first = post(server.addr("http"), "/orders", &headers, ORDER);
    let id = serde_json::from_str::<Value>(&first.body).unwrap()["orderId"].as_str().unwrap().to_owned();
    assert_eq!(first.status, 201);
    assert_eq!(first.body, format!(r#"{{"orderId":"{id}","status":"created","total":21}}"#));
    assert_eq!(first.header("x-correlation-id"), Some("corr-001"));
    assert_eq!(first.header("x-idempotency-key"), Some("order-c1-001"));
    assert_eq!(first.header("location"), Some(format!("/orders/{id}").as_str()));
    let again = post(server.addr("http"), "/orders", &headers, ORDER);
    assert_eq!((again.status, &again.body, again.header("idempotent-replayed")), (201, &first.body, Some("true")));
    let other = post(server.addr("http"), "/orders", &headers, &ORDER.replace("10.5", "10.6"));
    assert_eq!(other.status, 422, "{}", other.body);
    // The first member of a new group may take a moment to get its partitions.
    eventually(Duration::from_secs(10), "the order is processed", || {
        get(server.addr("http"), &format!("/orders/{id}")).body.contains(r#""status":"processed""#)
    });
    let created = topic(&server, "orders.created");
    assert_eq!(created.len(), 1, "one event for three requests");
    let keys: Vec<&String> = created[0].as_object().unwrap().keys().collect();
    assert_eq!(keys.into_iter().collect::<HashSet<_>>().len(), 6);
    for key in ["eventId", "type", "occurredAt", "correlationId", "idempotencyKey", "data"] {
        assert!(created[0].get(key).is_some(), "{key}");
    }
    assert_eq!(created[0]["type"], "orders.created.v1");
    assert_eq!(created[0]["correlationId"], "corr-001");
    let processed = topic(&server, "orders.processed");
    assert_eq!((processed.len(), &processed[0]["data"]["orderId"]), (1, &created[0]["data"]["orderId"]));
    assert_eq!(server.terminate(), Some(0), "a drain ends with 0");
}

#[test]
fn a_second_sigterm_does_not_cut_the_drain_and_a_second_sigint_does() {
    for (signal, code) in [("TERM", 0), ("INT", 130)] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = up(dir.path());
        command.env("MINISHOP_DRAIN_WAIT", "3s");
        let mut server = Process::start(command);
        server.signal(signal);
        let drains = || get(server.addr("admin"), "/readyz").status == 503;
        eventually(Duration::from_secs(2), "the drain has begun", drains);
        server.signal(signal);
        assert_eq!(server.ended(), Some(code), "SIG{signal} twice");
    }
}

#[test]
fn a_log_in_a_file_has_no_colours() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::start(up(dir.path()));
    assert_eq!(server.terminate(), Some(0));
    let log = server.said();
    assert!(log.contains(" INFO ") && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn a_client_command_takes_no_setting_of_a_server() {
    for (words, flag) in [
        (["order", "list", "--http-addr", "127.0.0.1:1"], "--http-addr"),
        (["--data-dir", "x", "dlq", "list"], "--data-dir"),
        (["migrate", "--handler", "confirm", "--reflection=true"], "--handler"),
    ] {
        let refused = minishop(&words).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains(&format!("error[USAGE] {flag}: is a setting of servers")), "{words:?}: {said}");
        assert_eq!(refused.status.code(), Some(2));
    }
    let refused = minishop(&["order", "list", "--http-adr=x"]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--http-adr") && !said.contains("did you mean"), "it would be refused as well: {said}");
}

#[test]
fn a_second_process_is_kept_out_of_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(up(dir.path()));
    let second = up(dir.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("DATA_DIR_LOCKED") && said.contains(&server.pid().to_string()), "{said}");
}

/// Waits until `more` further orders are acknowledged.
fn flows(load: &Load, more: usize) {
    let wanted = load.acknowledged() + more;
    eventually(Duration::from_secs(30), "orders are acknowledged", || load.acknowledged() >= wanted);
}

#[test]
fn kill_9_under_load_loses_and_doubles_nothing() {
    const KILLS: usize = 10;
    let dir = tempfile::tempdir().unwrap();
    let load = Load::default();
    let (mut server, promises) = load.during(8, || {
        let mut server = Process::start(up(dir.path()));
        for _ in 0..KILLS {
            load.moved(server.addr("http"));
            flows(&load, 60);
            server.kill();
            server = Process::start(up(dir.path()));
        }
        load.moved(server.addr("http"));
        server
    });
    assert!(promises.len() >= KILLS * 60);
    check(&Embedded::new(&server, dir.path()), &promises);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn sigterm_under_load_drains_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let load = Load::default();
    let (mut server, promises) = load.during(8, || {
        let mut server = Process::start(up(dir.path()));
        load.moved(server.addr("http"));
        flows(&load, 300);
        assert_eq!(server.terminate(), Some(0), "a drain ends with 0");
        server = Process::start(up(dir.path()));
        load.moved(server.addr("http"));
        flows(&load, 60);
        server
    });
    let refusals = load.refusals();
    assert!(refusals.keys().all(|r| r == "no answer" || r == "503 SHUTTING_DOWN"), "{refusals:?}");
    assert!(!refusals.is_empty(), "no client was there to be drained");
    check(&Embedded::new(&server, dir.path()), &promises);
    assert_eq!(server.terminate(), Some(0));
}
