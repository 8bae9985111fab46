//! Configuration: what the operator may set.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// Everything that can be set, after flags, environment, file and defaults were joined.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where REST listens.
    pub http_addr: SocketAddr,
    /// Where gRPC listens.
    pub grpc_addr: SocketAddr,
    /// Where health and metrics listen.
    pub admin_addr: SocketAddr,
    /// Where the embedded event log listens.
    pub kafka_addr: SocketAddr,
    /// Where the embedded stores live.
    pub data_dir: PathBuf,
    /// PostgreSQL; `None` is the embedded store.
    pub database_url: Option<SecretString>,
    /// Kafka bootstrap servers; `None` is the embedded event log.
    pub kafka_brokers: Option<String>,
    /// Redis; `None` keeps hints in memory.
    pub redis_url: Option<SecretString>,
    /// Prefix of all topics and of the default group.
    pub topic_prefix: String,
    /// Which field is the record key.
    pub event_key: minishop_contracts::key::EventKey,
    /// The consumer group.
    pub kafka_group: String,
    /// How long the group waits for a silent member.
    pub kafka_session_timeout: Duration,
    /// Partitions of new topics.
    pub topic_partitions: i32,
    /// Whether a create without an idempotency key is refused.
    pub require_idempotency_key: bool,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
    /// Whether migrations are applied at start.
    pub migrate: bool,
    /// How long readiness is withdrawn before the listeners close.
    pub drain_wait: Duration,
    /// Shed new orders above so many waiting events.
    pub outbox_limit_rows: i64,
    /// Shed new orders when the oldest waiting event is older.
    pub outbox_limit_age: Duration,
}
