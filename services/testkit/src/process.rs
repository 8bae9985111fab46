//! A running process of the real binary, killed at the end of the test.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::blocking::eventually;

/// Timeout of every drain.
const DRAIN: Duration = Duration::from_secs(30);

/// Returns a command of a real binary, on free ports and without the environment of the test run.
pub fn command(binary: &str, words: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(words).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for listener in ["HTTP", "GRPC", "ADMIN", "KAFKA"] {
        command.env(format!("MINISHOP_{listener}_ADDR"), "127.0.0.1:0");
    }
    // A killed member blocks its group for this long.
    command.env("MINISHOP_KAFKA_SESSION_TIMEOUT", "6s");
    command.env("MINISHOP_DRAIN_WAIT", "0ms");
    command
}

/// A process of a real binary. It stays in the test's process group, which nextest kills as a whole at its timeout.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Its ready line, with the addresses.
    pub ready: String,
    log: File,
}

impl Process {
    /// Starts a role and waits for its ready line.
    pub fn start(mut command: Command) -> Self {
        let log = tempfile::tempfile().unwrap();
        command.stderr(log.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let process = Self { child, ready, log };
        assert!(process.ready.starts_with("ready "), "the first line is {:?}", process.ready);
        process
    }

    /// Returns an address from the ready line.
    pub fn addr(&self, name: &str) -> &str {
        let wanted = format!("{name}=");
        self.ready.split_whitespace().find_map(|part| part.strip_prefix(&wanted)).unwrap()
    }

    /// Returns its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process without a drain, as a power cut would.
    pub fn kill(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "it had ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&mut self, name: &str) {
        assert_eq!(self.child.try_wait().unwrap(), None, "it had ended by itself");
        assert!(Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap().success());
    }

    /// Returns what the process wrote to standard error.
    pub fn said(&mut self) -> String {
        let mut said = String::new();
        let _ = self.log.rewind().and_then(|()| self.log.read_to_string(&mut said));
        said
    }

    /// Sends SIGTERM.
    pub fn ask_to_end(&mut self) {
        self.signal("TERM");
    }

    /// Waits until the process has drained, and returns its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        eventually(DRAIN, "the process has drained", || self.child.try_wait().unwrap()).code()
    }

    /// Sends SIGTERM and waits for the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.ask_to_end();
        self.ended()
    }
}

/// Runs a command that must be refused; returns its exit code and standard error.
pub fn refused(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    assert_ne!(output.status.code(), Some(0), "{command:?}: {output:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            eprintln!("--- process {} said at last:\n{}", self.pid(), last.join("\n"));
        }
    }
}
