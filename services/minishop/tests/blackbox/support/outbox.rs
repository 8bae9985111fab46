//! `minishop outbox` on a running installation.

use crate::support::place::Place;

pub fn the_outbox_is_looked_at_on_the_command_line(place: &Place<'_>) {
    let shards = place.json(&["outbox", "list", "--shards"]);
    let numbers: Vec<i64> = shards.as_array().unwrap().iter().map(|shard| shard["shard"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 16, 17, 18, 19]);
    assert_eq!(place.json(&["outbox", "list"]).as_array().map(Vec::len), Some(0), "nothing waits");
    assert_eq!(place.json(&["outbox", "list", "--set-aside", "--limit", "1"]).as_array().map(Vec::len), Some(0));
    let nobodys = "019e0000-0000-7000-8000-000000000000";
    for words in [
        &["outbox", "set-aside", "--event", nobodys, "--reason", "it is lost"][..],
        &["outbox", "set-aside", "--topic", "no.such.topic", "--reason", "it is gone"],
        &["outbox", "set-aside", "--topic", "no.such.topic", "--reason", " "],
        &["outbox", "step-over", "--shard", "0", "--number", "1", "--reason", "it is lost"],
        &["outbox", "step-over", "--shard", "99", "--number", "1", "--reason", "it is lost"],
    ] {
        let (code, said) = place.refused(words);
        assert_eq!(code, Some(1), "{words:?}: {said}");
        assert!(said.contains("nothing is changed"), "{words:?}: {said}");
    }
    assert_eq!(place.refused(&["outbox", "set-aside", "--reason", "which"]).0, Some(2), "neither event nor topic");
}
