//! `minishop topics` on a running installation.

use minishop_contracts::topics;
use serde_json::{Value, json};

use crate::support::place::Place;

pub fn topics_are_checked_on_the_command_line(place: &Place<'_>) {
    let row = |name: &str| json!({"name": name, "partitions": 8, "replicas": 1});
    let wanted: Vec<Value> = topics::ALL.iter().map(|name| row(&place.topic(name))).collect();
    assert_eq!(place.json(&["topics", "check"]), json!(wanted));
    let checked = place.run(&["topics", "check"]);
    let warned = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(warned.lines().filter(|line| line.starts_with("warning ")).count(), topics::ALL.len(), "{warned}");
    let (code, said) = place.refused(&["topics", "check", "--topic-prefix", "nobody-made-these."]);
    let missing = said.lines().filter(|line| line.starts_with("error[TOPIC_MISSING] nobody-made-these.")).count();
    assert_eq!((code, missing), (Some(1), topics::ALL.len()), "{said}");
    let made = place.json(&["topics", "create"]);
    assert!(made.as_array().unwrap().iter().all(|topic| topic["result"] == "existed"), "{made}");
    assert_eq!(place.refused(&["topics", "check", "--kafka-brokers", "127.0.0.1:1"]).0, Some(69));
    // Only an offset that is in the log and that no worker has read can be skipped, and only with a reason.
    for (offset, reason) in [("1000000", "broken"), ("0", " ")] {
        let words = ["topics", "skip", "--partition", "0", "--offset", offset, "--reason", reason];
        let (code, said) = place.refused(&words);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("nothing is skipped"), "{said}");
    }
}
