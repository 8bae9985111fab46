//! An embedded event log.

use std::net::SocketAddr;
use std::path::PathBuf;

use minishop_broker::{Error, Handle, Settings, TopicSettings, open};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::spawn;

/// A log that runs until it is stopped or dropped.
pub struct EmbeddedLog {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its file.
    pub file: PathBuf,
    /// Creates topics, and tells whether it can write.
    pub handle: Handle,
    stop: DropGuard,
    task: JoinHandle<Result<(), Error>>,
}

/// Returns an address with a free port.
pub fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

impl EmbeddedLog {
    /// Starts it.
    pub async fn start(settings: Settings) -> Self {
        let file = settings.file.clone();
        let log = open(settings).await.unwrap();
        let stop = CancellationToken::new();
        let handle = log.handle();
        Self { addr: handle.addr(), file, handle, task: spawn(log.run(stop.clone())), stop: stop.drop_guard() }
    }

    /// Creates a topic.
    pub async fn topic(&self, name: &str, partitions: i32, settings: TopicSettings) {
        self.handle.ensure_topic(name, partitions, settings).await.expect("the topic is made");
    }

    /// Stops it gracefully.
    pub async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }
}
