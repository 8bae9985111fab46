//! Dead letters on the command line: looked at, processed again, given up.

use std::process::Output;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

use crate::process::{Process, minishop};
use crate::rest::{get, post};
use crate::up;
use crate::wait::eventually;

const WAIT: Duration = Duration::from_secs(20);

/// Writes what is no event.
fn produce_garbage(server: &Process, count: usize) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", server.addr("kafka")).set("linger.ms", "0").create().unwrap();
    for n in 0..count {
        let value = format!("garbage {n}");
        producer.send(BaseRecord::to("orders.created").key("k").payload(&value)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(WAIT).unwrap();
}

fn dlq(server: &Process, words: &[&str]) -> Output {
    let address = format!("http://{}", server.addr("http"));
    minishop(&[&["dlq", "--server", &address], words].concat()).output().unwrap()
}

/// Runs a command that must succeed; its JSON.
fn json(server: &Process, words: &[&str]) -> Value {
    let done = dlq(server, &[&["--output", "json"], words].concat());
    assert_eq!(done.status.code(), Some(0), "{words:?}: {done:?}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// The exit code, and what was said.
fn refused(server: &Process, words: &[&str]) -> (Option<i32>, String) {
    let done = dlq(server, words);
    (done.status.code(), String::from_utf8(done.stderr).unwrap())
}

fn dead(server: &Process, count: usize) -> Vec<String> {
    produce_garbage(server, count);
    let letters = eventually(WAIT, "the records are dead letters", || {
        let letters = json(server, &["list", "--limit", "1000"]);
        (letters.as_array().unwrap().len() == count).then_some(letters)
    });
    letters.as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn dead_letters_are_looked_at_and_given_up_on_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::start(up(dir.path()));
    let ids = dead(&server, 12);
    let groups = json(&server, &["groups"]);
    assert_eq!((groups.as_array().unwrap().len(), &groups[0]["errorCode"]), (1, &"JSON_INVALID".into()), "{groups}");
    let shown = dlq(&server, &["show", &ids[0]]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("garbage 11") && text.contains("JSON_INVALID"), "{text}");
    let (code, said) = refused(&server, &["show", "4711"]);
    assert!(code == Some(1) && said.contains("DEAD_LETTER_NOT_FOUND"), "{said}");

    let dry = json(&server, &["redrive", "--code", "JSON_INVALID", "--dry-run"]);
    assert_eq!((&dry["matched"], &dry["operation"]), (&12.into(), &Value::Null));
    let (code, said) = refused(&server, &["discard", "--all", "--reason", "x"]);
    assert!(code == Some(2) && said.contains("error[USAGE]") && said.contains("--yes"), "{said}");
    let (code, said) = refused(&server, &["discard", &ids[0]]);
    assert!(code == Some(1) && said.contains("reason REQUIRED"), "{said}");
    let (code, said) = refused(&server, &["redrive"]);
    assert!(code == Some(1) && said.contains("ids REQUIRED"), "{said}");
    assert_eq!(json(&server, &["operations"]), Value::Array(Vec::new()), "nothing was begun");

    let one = json(&server, &["discard", &ids[0], "4711", "--reason", "bytes of a stranger", "--operator", "ana", "--wait"]);
    assert_eq!((&one["operation"]["state"], &one["operation"]["progress"]["succeeded"]), (&"done".into(), &1.into()));
    assert_eq!(one["items"][0]["reason"], "NOT_FOUND");
    let rest = dlq(&server, &["discard", "--all", "--yes", "--reason", "bytes of a stranger", "--rate", "10000", "--wait"]);
    assert_eq!(rest.status.code(), Some(0), "{rest:?}");
    let told = String::from_utf8(rest.stderr).unwrap();
    assert!(told.lines().last().unwrap().starts_with("11/11 decided"), "each change is a line: {told}");
    assert_eq!(json(&server, &["list"]), Value::Array(Vec::new()));
    let nothing = json(&server, &["redrive", "--all", "--yes"]);
    assert_eq!(nothing["matched"], 0, "0 matched is done");
    let audit = json(&server, &["audit", "--limit", "1000"]);
    let discarded = audit.as_array().unwrap().iter().filter(|entry| entry["outcome"] == "discarded").count();
    assert_eq!(discarded, 12);
    assert!(get(server.addr("http"), "/ops/parked-keys").body.contains(r#""keys":[]"#));
    assert_eq!(server.terminate(), Some(0));
    let gone = minishop(&["dlq", "--server", "http://127.0.0.1:1", "list"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(69));
}

#[test]
fn an_operation_outlives_kill_9_of_its_worker() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::start(up(dir.path()));
    dead(&server, 40);
    let body = r#"{"filter":{},"rate":10,"reason":"bytes of a stranger"}"#;
    let begun: Value = serde_json::from_str(&post(server.addr("http"), "/ops/dead-letters/discard", &[], body).body).unwrap();
    let id = begun["operation"]["id"].as_str().unwrap().to_owned();
    let decided = |server: &Process| {
        let operation = json(server, &["operation", &id])["operation"].clone();
        (operation["state"].as_str().unwrap().to_owned(), operation["progress"]["succeeded"].as_u64().unwrap())
    };
    eventually(WAIT, "some are discarded", || (decided(&server).1 > 2).then_some(()));
    server.kill();
    server = Process::start(up(dir.path()));
    eventually(Duration::from_secs(40), "the operation goes on and ends", || {
        (decided(&server) == ("done".to_owned(), 40)).then_some(())
    });
    assert_eq!(json(&server, &["list"]), Value::Array(Vec::new()));
    assert_eq!(server.terminate(), Some(0));
}
