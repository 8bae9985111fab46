//! What all connections and tasks of one log share.

use std::{net::SocketAddr, sync::Arc};

use kafka_protocol::{error::ResponseError, protocol::StrBytes};
use sqlx::SqlitePool;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};

use crate::{
    catalog::{Catalog, Topic},
    groups::Groups,
    log::{Command, Control},
    settings::{Settings, TopicSettings},
    stats::Counters,
};

/// Longest topic name; Kafka's rule, which comes from file names.
const NAME_BYTES: usize = 249;

pub(crate) struct Shared {
    pub settings: Settings,
    /// The address listened on, its port never 0.
    pub addr: SocketAddr,
    /// Host and port that clients are told.
    pub host: StrBytes,
    pub cluster: StrBytes,
    pub catalog: Catalog,
    pub groups: Groups,
    pub readers: SqlitePool,
    pub writer: mpsc::Sender<Command>,
    pub counters: Counters,
    /// Bytes that requests being read and answers being sent may still take.
    pub memory: Arc<Semaphore>,
    /// Held by who decompresses a large batch.
    pub inflating: Mutex<()>,
}

impl Shared {
    /// Asks the writer for a change and waits for it; error 56 when the writer has ended.
    pub async fn control<T>(
        &self,
        control: impl FnOnce(oneshot::Sender<Result<T, ResponseError>>) -> Control,
    ) -> Result<T, ResponseError> {
        let (reply, outcome) = oneshot::channel();
        let sent = self.writer.send(Command::Control(control(reply))).await;
        sent.map_err(|_| ResponseError::KafkaStorageError)?;
        outcome.await.unwrap_or(Err(ResponseError::KafkaStorageError))
    }

    /// Checks name and partition count and makes a topic.
    pub async fn create_topic(&self, name: &str, partitions: i32, settings: TopicSettings) -> Result<Arc<Topic>, ResponseError> {
        self.may_create(name, partitions)?;
        let name = name.to_owned();
        self.control(|reply| Control::CreateTopic { name, partitions, settings, reply }).await
    }

    /// Says why a topic cannot be made, without making it.
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
