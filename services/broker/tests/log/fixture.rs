//! A running log in a directory of its own.

use std::ops::Deref;
use std::time::Duration;

use minishop_broker::{Settings, TopicSettings};
use minishop_testkit::log::{EmbeddedLog, any_port};
use tempfile::TempDir;

use super::raw::Raw;

/// A log that serves on a free port.
pub struct Log(EmbeddedLog);

impl Deref for Log {
    type Target = EmbeddedLog;

    fn deref(&self) -> &EmbeddedLog {
        &self.0
    }
}

/// Settings for a file in `dir`, on a free port, with quick retention passes.
pub fn settings(dir: &TempDir) -> Settings {
    let mut settings = Settings::new(any_port(), dir.path().join("log.db"));
    settings.retention_interval = Duration::from_millis(20);
    settings.rebalance_delay = Duration::from_millis(5);
    settings
}

impl Log {
    pub async fn start(settings: Settings) -> Self {
        Self(EmbeddedLog::start(settings).await)
    }

    /// Starts a log in `dir` with topic `t` of three partitions.
    pub async fn with_topic(dir: &TempDir) -> Self {
        let log = Self::start(settings(dir)).await;
        log.topic("t", 3, TopicSettings::default()).await;
        log
    }

    pub async fn connect(&self) -> Raw {
        Raw::connect(self.addr).await
    }

    /// Stops the log gracefully.
    pub async fn stop(self) {
        self.0.stop().await;
    }
}
