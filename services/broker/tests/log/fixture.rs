//! A running log in a directory of its own, and polling for a condition.

use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use minishop_broker::{Error, Handle, Settings, StatsHandle, TopicSettings, open};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::raw::Raw;

/// A log that serves on a free port.
pub struct Log {
    pub addr: SocketAddr,
    pub file: PathBuf,
    pub handle: Handle,
    pub stats: StatsHandle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

/// Settings for a file in `dir`, on a free port, with quick retention passes.
pub fn settings(dir: &TempDir) -> Settings {
    let mut settings = Settings::new("127.0.0.1:0".parse().unwrap(), dir.path().join("log.db"));
    settings.retention_interval = Duration::from_millis(20);
    settings.rebalance_delay = Duration::from_millis(5);
    settings
}

impl Log {
    pub async fn start(settings: Settings) -> Self {
        let file = settings.file.clone();
        let log = open(settings).await.unwrap();
        let stop = CancellationToken::new();
        let (addr, handle, stats) = (log.addr(), log.handle(), log.stats());
        #[expect(clippy::disallowed_methods, reason = "the test is who ends this task")]
        let task = tokio::spawn(log.run(stop.clone()));
        Self { addr, file, handle, stats, stop, task }
    }

    /// Starts a log in `dir` with topic `t` of three partitions.
    pub async fn with_topic(dir: &TempDir) -> Self {
        let log = Self::start(settings(dir)).await;
        log.handle.ensure_topic("t", 3, TopicSettings::default()).await.unwrap();
        log
    }

    pub async fn connect(&self) -> Raw {
        Raw::connect(self.addr).await
    }

    /// Stops the log gracefully.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Polls until `ask` returns true.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let begun = Instant::now();
    while !ask().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "still not so: {what}");
        tokio::task::yield_now().await;
    }
}
