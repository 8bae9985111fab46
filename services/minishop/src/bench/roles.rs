//! Processes of this program, started for a measurement on free ports.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::target::{Protocol, Target};

/// How long a process may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running role. It is killed if the measurement fails.
#[derive(Debug)]
pub struct Role {
    child: Child,
    /// Its ready line, with the addresses.
    ready: String,
    /// When it was started.
    pub started: Instant,
}

impl Role {
    /// Starts `minishop` with arguments and waits for its ready line. It inherits the environment, except for the variables
    /// `without`, and writes its log to standard error.
    pub async fn start(words: &[&str], without: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        for name in without {
            command.env_remove(name);
        }
        for listener in ["http", "grpc", "admin"] {
            command.env(format!("MINISHOP_{}_ADDR", listener.to_uppercase()), "127.0.0.1:0");
        }
        let started = Instant::now();
        let mut child = command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let mut ready = String::new();
        tokio::time::timeout(PATIENCE, BufReader::new(stdout).read_line(&mut ready)).await.context("it does not start")??;
        ensure!(ready.starts_with("ready "), "`minishop {}` did not become ready", words.join(" "));
        Ok(Self { child, ready, started })
    }

    /// Returns an address from the ready line.
    pub fn address(&self, name: &str) -> anyhow::Result<String> {
        let address = self.ready.split_whitespace().find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        Ok(address.with_context(|| format!("the ready line does not name {name}"))?.to_owned())
    }

    /// Returns its addresses as a target.
    pub fn target(&self, protocol: Protocol) -> anyhow::Result<Target> {
        Ok(Target { protocol, http: vec![self.address("http")?], grpc: vec![self.address("grpc")?] })
    }

    /// Returns its process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the process has ended")
    }

    /// Sends SIGTERM and waits for an orderly end.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let sent = Command::new("kill").arg("-TERM").arg(self.pid()?.to_string()).status().await?;
        ensure!(sent.success(), "the process has ended early");
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.with_context(|| format!("a process did not end within {PATIENCE:?}"))??;
        ensure!(status.success(), "a process has failed: {status}");
        Ok(())
    }
}
