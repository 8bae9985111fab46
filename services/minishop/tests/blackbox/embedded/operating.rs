//! Operators' commands, on embedded parts.

use std::path::Path;
use std::time::Duration;

use minishop_testkit::blocking::{block_on, eventually};
use minishop_testkit::database::Database;
use minishop_testkit::process::Process;
use minishop_testkit::rest::post;
use serde_json::{Value, json};

use crate::embedded::up;
use crate::support::endpoint::Endpoint;
use crate::support::place::{Place, minishop};
use crate::support::{announcing, dead_letters, outbox, repair, replaying, topics};

/// Runs a scenario against a server.
fn beside(server: &Process, dir: &Path, scenario: impl FnOnce(&Place<'_>)) {
    let command = |words: &[&str]| {
        let mut command = minishop(words);
        command.env("MINISHOP_DATA_DIR", dir.join("data")).env("MINISHOP_KAFKA_ADDR", server.addr("kafka"));
        command
    };
    let (http, brokers) = (server.addr("http"), server.addr("kafka"));
    scenario(&Place { http, brokers, prefix: String::new(), command: &command });
}

/// Runs a scenario on a server of its own.
fn alone(scenario: fn(&Place<'_>)) {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::start(up(dir.path()));
    beside(&server, dir.path(), scenario);
    assert_eq!(server.terminate(), Some(0), "a drain ends with 0");
}

/// Runs a scenario on a server whose worker calls an endpoint.
fn with_an_endpoint(scenario: fn(&Place<'_>, &Endpoint)) {
    let (dir, endpoint) = (tempfile::tempdir().unwrap(), Endpoint::start());
    let mut command = up(dir.path());
    command.envs(endpoint.settings());
    let mut server = Process::start(command);
    beside(&server, dir.path(), |place| scenario(place, &endpoint));
    assert_eq!(server.terminate(), Some(0), "a drain ends with 0");
}

#[test]
fn a_failing_customer_waits_and_is_repaired_in_order() {
    with_an_endpoint(repair::a_failing_customer_waits_and_is_repaired_in_order);
}

#[test]
fn dead_letters_are_looked_at_processed_again_and_given_up() {
    with_an_endpoint(dead_letters::dead_letters_are_looked_at_processed_again_and_given_up);
}

#[test]
fn an_order_whose_event_is_lost_is_announced_again_and_processed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::start(up(dir.path()));
    let database = Database::of(&dir.path().join("data/minishop.db"));
    let sql = |sql: &'static str| {
        block_on(database.sql(sql));
    };
    let scenario = announcing::an_order_whose_event_is_lost_is_announced_again_and_processed;
    beside(&server, dir.path(), |place| scenario(place, &sql));
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn history_is_published_again_to_another_topic_and_to_no_live_one() {
    alone(replaying::history_is_published_again_to_another_topic_and_to_no_live_one);
}

#[test]
fn topics_are_checked_on_the_command_line() {
    alone(topics::topics_are_checked_on_the_command_line);
}

#[test]
fn the_outbox_is_looked_at_on_the_command_line() {
    alone(outbox::the_outbox_is_looked_at_on_the_command_line);
}

#[test]
fn an_operation_outlives_kill_9_of_its_worker() {
    const COUNT: usize = 40;
    const WAIT: Duration = Duration::from_secs(40);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::start(up(dir.path()));
    dead_letters::produce_garbage(server.addr("kafka"), "orders.created", COUNT);
    let mut id = String::new();
    let decided = |place: &Place<'_>, id: &str| {
        let operation = place.json(&["dlq", "operation", id])["operation"].clone();
        (operation["state"].as_str().unwrap().to_owned(), operation["progress"]["succeeded"].as_u64().unwrap())
    };
    beside(&server, dir.path(), |place| {
        eventually(WAIT, "the records are dead letters", || place.json(&["dlq", "status"])["parked"]["dead"] == COUNT);
        let body = r#"{"filter":{},"rate":10,"reason":"bytes of a stranger"}"#;
        let begun: Value = serde_json::from_str(&post(place.http, "/ops/dead-letters/discard", &[], body).body).unwrap();
        begun["operation"]["id"].as_str().unwrap().clone_into(&mut id);
        eventually(WAIT, "some are discarded", || decided(place, &id).1 > 2);
    });
    server.kill();
    server = Process::start(up(dir.path()));
    beside(&server, dir.path(), |place| {
        eventually(WAIT, "the operation goes on and ends", || decided(place, &id) == ("done".to_owned(), COUNT as u64));
        assert_eq!(place.json(&["dlq", "list"]), json!([]));
    });
    assert_eq!(server.terminate(), Some(0));
}
