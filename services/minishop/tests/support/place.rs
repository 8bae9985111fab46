//! A running installation with its command line: what a scenario needs to know to run in both modes.

use std::process::{Child, Command, Output};
use std::time::Duration;

use minishop_bus::Record;
use minishop_bus::consume::{Start, Tail};
use minishop_contracts::topics;
use serde_json::Value;

use crate::rest::get;
use crate::wait::eventually;

/// A running installation.
pub struct Place<'a> {
    pub http: &'a str,
    pub brokers: &'a str,
    pub prefix: String,
    /// Returns a command of the real binary with the installation's settings.
    pub command: &'a dyn Fn(&[&str]) -> Command,
}

impl Place<'_> {
    /// Reads a resource over REST.
    pub fn read(&self, path: &str) -> Value {
        let answer = get(self.http, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Starts a command.
    pub fn start(&self, words: &[&str]) -> Child {
        (self.command)(words).env("MINISHOP_SERVER", format!("http://{}", self.http)).spawn().unwrap()
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Output {
        self.start(words).wait_with_output().unwrap()
    }

    /// Runs a command that must succeed; returns the table that it prints.
    pub fn table(&self, words: &[&str]) -> String {
        let done = self.run(words);
        assert_eq!(done.status.code(), Some(0), "{words:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Runs a command that must succeed; returns its JSON.
    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.table(&[words, &["--output", "json"]].concat())).unwrap()
    }

    /// Runs a command that must fail; returns its exit code and standard error.
    pub fn refused(&self, words: &[&str]) -> (Option<i32>, String) {
        let done = self.run(words);
        assert_ne!(done.status.code(), Some(0), "{words:?}: {done:?}");
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    }

    /// Returns a topic's full name.
    pub fn topic(&self, name: &str) -> String {
        topics::prefixed(&self.prefix, name)
    }

    /// Reads all events of one of the installation's topics, in order per partition.
    pub fn events(&self, name: &str) -> Vec<Value> {
        events(self.brokers, &self.topic(name))
    }
}

/// Reads all records of a topic, in order per partition.
pub fn records(brokers: &str, topic: &str) -> Vec<Record> {
    // A new topic has no leaders at first.
    let open = || Tail::open(brokers, &[topic.to_owned()], Start::Beginning).ok();
    let tail = eventually(Duration::from_secs(20), "the topic can be read", open);
    tail.rest(Duration::from_mins(1)).unwrap()
}

/// Reads all events of a topic, in order per partition.
pub fn events(brokers: &str, topic: &str) -> Vec<Value> {
    let records = records(brokers, topic);
    records.iter().map(|record| serde_json::from_slice(record.value.as_deref().unwrap()).unwrap()).collect()
}
