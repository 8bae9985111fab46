//! A running installation with its command line: what a scenario needs to know to run in both modes.

use std::process::{Child, Command, Output};

use minishop_contracts::topics;
use minishop_testkit::process::command;
use minishop_testkit::rest::get;
use minishop_testkit::topics::events;
use serde_json::Value;

/// Returns a command of the real binary.
pub fn minishop(words: &[&str]) -> Command {
    command(env!("CARGO_BIN_EXE_minishop"), words)
}

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
