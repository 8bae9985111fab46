//! A server of a test's own that it may stop.

use std::path::{Path, PathBuf};
use std::process::Command;

use minishop_testkit::servers::required;

use crate::support::shop::Addresses;

/// A server that no other test uses; removed with the test.
#[derive(Debug)]
pub struct OwnServer {
    name: &'static str,
    state: PathBuf,
}

impl OwnServer {
    /// Starts `postgres`, `kafka` or `redis`. Its state is below that of the shared servers, where `infra/test` finds what
    /// a killed test has left behind.
    pub fn start(name: &'static str) -> Self {
        let shared = required("MINISHOP_TEST_STATE");
        let server = Self { name, state: PathBuf::from(shared).join(format!("own-{}", std::process::id())) };
        server.start_again();
        server
    }

    /// Returns the addresses of this server and of the shared ones. It keeps its port.
    pub fn addresses(&self) -> Addresses {
        let lines = self.run("env", None);
        let read = |name: &str| {
            let wanted = format!("export {name}=");
            lines.lines().find_map(|line| line.strip_prefix(&wanted)).unwrap().to_owned()
        };
        let mut addresses = Addresses::given();
        match self.name {
            "postgres" => addresses.postgres = read("MINISHOP_TEST_POSTGRES"),
            "kafka" => addresses.kafka = read("MINISHOP_TEST_KAFKA"),
            _ => addresses.redis = read("MINISHOP_TEST_REDIS"),
        }
        addresses
    }

    /// Returns the directory of its state.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Stops it gracefully.
    pub fn stop(&self) {
        self.run("stop-one", Some(self.name));
    }

    /// Starts it again on its data and waits until it answers.
    pub fn start_again(&self) {
        self.run("start-one", Some(self.name));
    }

    fn run(&self, word: &str, name: Option<&str>) -> String {
        let done = self.command(word).args(name).output().unwrap();
        assert!(done.status.success(), "{word}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    fn command(&self, word: &str) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/servers"));
        command.arg(word).arg("--dir").arg(&self.state);
        command
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let _ = self.command("clean").output();
    }
}
