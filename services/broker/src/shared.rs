//! State shared by all connections and tasks of one log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use sqlx::SqlitePool;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};

use crate::catalog::{Catalog, Topic};
use crate::groups::Groups;
use crate::log::{Command, Control};
use crate::settings::{Settings, TopicSettings};

/// Longest topic name, as in Kafka.
const NAME_BYTES: usize = 249;

pub(crate) struct Shared {
    pub settings: Settings,
    /// The bound address; its port is never 0.
    pub addr: SocketAddr,
    /// Host that clients are given to connect to.
    pub host: StrBytes,
    pub cluster: StrBytes,
    pub catalog: Catalog,
    pub groups: Groups,
    pub readers: SqlitePool,
    pub writer: mpsc::Sender<Command>,
    /// False while the disk refuses writes.
    pub writable: AtomicBool,
    /// Memory budget in bytes for large requests and fetch answers.
    pub memory: Arc<Semaphore>,
    /// Held while a large batch is decompressed.
    pub inflating: Mutex<()>,
}

impl Shared {
    /// Sends a change to the writer and waits for its outcome; error 56 if the writer has ended.
    pub async fn control<T>(
        &self,
        control: impl FnOnce(oneshot::Sender<Result<T, ResponseError>>) -> Control,
    ) -> Result<T, ResponseError> {
        let (reply, outcome) = oneshot::channel();
        let sent = self.writer.send(Command::Control(control(reply))).await;
        sent.map_err(|_| ResponseError::KafkaStorageError)?;
        outcome.await.unwrap_or(Err(ResponseError::KafkaStorageError))
    }

    /// Checks name and partition count and creates a topic.
    pub async fn create_topic(&self, name: &str, partitions: i32, settings: TopicSettings) -> Result<Arc<Topic>, ResponseError> {
        self.may_create(name, partitions)?;
        let name = name.to_owned();
        self.control(|reply| Control::CreateTopic { name, partitions, settings, reply }).await
    }

    /// Returns why a topic cannot be created, without creating it.
    pub fn may_create(&self, name: &str, partitions: i32) -> Result<(), ResponseError> {
        let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > NAME_BYTES || matches!(name, "." | "..") || !name.chars().all(lawful) {
            return Err(ResponseError::InvalidTopicException);
        }
        if self.catalog.get(name).is_some() {
            return Err(ResponseError::TopicAlreadyExists);
        }
        if !(1..=self.settings.limits.partitions).contains(&partitions) {
            return Err(ResponseError::InvalidPartitions);
        }
        Ok(())
    }
}
