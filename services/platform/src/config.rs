//! Configuration: flags, then environment, then file, then defaults; all problems are reported at once.

mod check;
mod handler;
mod print;
pub mod sources;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use minishop_contracts::key::EventKey;
use minishop_core::backoff::Backoff;
use secrecy::SecretString;

use crate::telemetry::LogFormat;
pub use handler::{HandlerFlags, Handling, Webhook};
use minishop_bus::produce::Compression;
pub use values::duration;

/// Every setting that a process takes, as flags and variables. All are texts here, so that one check names all that are wrong.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// TOML configuration file; its keys are the variables below in lower case, without `MINISHOP_`.
    #[arg(long = "config", id = "config", global = true, env = "MINISHOP_CONFIG", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Address of the REST listener, as IP:port; port 0 takes a free port.
    #[arg(long, global = true, env = "MINISHOP_HTTP_ADDR", value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    http_addr: String,
    /// Address of the gRPC listener, as IP:port.
    #[arg(long, global = true, env = "MINISHOP_GRPC_ADDR", value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    grpc_addr: String,
    /// Address for health and metrics, as IP:port; 127.0.0.1:9464 unless set, 127.0.0.1:9465 for a separate worker.
    #[arg(long, global = true, env = "MINISHOP_ADMIN_ADDR", value_name = "ADDRESS")]
    admin_addr: Option<String>,
    /// Address of the embedded event log, as IP:port.
    #[arg(long, global = true, env = "MINISHOP_KAFKA_ADDR", value_name = "ADDRESS", default_value = "127.0.0.1:9092")]
    kafka_addr: String,
    /// Directory of the embedded store and event log.
    #[arg(long, global = true, env = "MINISHOP_DATA_DIR", value_name = "DIRECTORY", default_value = "./.minishop")]
    data_dir: PathBuf,
    /// PostgreSQL URL, such as `postgres://user@host:5432/database`; without it, `up` uses the embedded store.
    #[arg(long, global = true, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", value_parser = values::secret)]
    database_url: Option<SecretString>,
    /// File with the PostgreSQL URL, instead of the URL itself; must not be readable by others.
    #[arg(long, global = true, env = "DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,
    /// Kafka bootstrap servers; without them, `up` uses the embedded event log.
    #[arg(long, global = true, env = "KAFKA_BROKERS", value_name = "HOST:PORT,…")]
    kafka_brokers: Option<String>,
    /// Redis URL, such as `redis://host:6379`, for hints between processes; without a reachable Redis, they poll.
    #[arg(long, global = true, env = "REDIS_URL", hide_env_values = true, value_name = "URL", value_parser = values::secret)]
    redis_url: Option<SecretString>,
    /// File with the Redis URL, instead of the URL itself; must not be readable by others.
    #[arg(long, global = true, env = "REDIS_URL_FILE", value_name = "FILE")]
    redis_url_file: Option<PathBuf>,
    /// Prefix of all topics and of the default consumer group: at most 200 letters, digits, dots, dashes and underscores.
    #[arg(long, global = true, env = "MINISHOP_TOPIC_PREFIX", value_name = "TEXT", default_value = "")]
    topic_prefix: String,
    /// Record key of events: customer or order.
    #[arg(long, global = true, env = "MINISHOP_EVENT_KEY", value_name = "FIELD", default_value = "customer")]
    event_key: String,
    /// Consumer group of the workers; `<prefix>minishop-worker` unless set.
    #[arg(long, global = true, env = "MINISHOP_KAFKA_GROUP", value_name = "NAME")]
    kafka_group: Option<String>,
    /// Session timeout: the group reassigns the partitions of a worker that is silent for longer.
    #[arg(long, global = true, env = "MINISHOP_KAFKA_SESSION_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    kafka_session_timeout: String,
    /// Compression of published events: none, gzip, snappy, lz4 or zstd; every consumer must support it.
    #[arg(long, global = true, env = "MINISHOP_KAFKA_COMPRESSION", value_name = "CODEC", default_value = "none")]
    kafka_compression: String,
    /// Static member name in the consumer group (`group.instance.id`): unique per worker, unchanged by a restart.
    #[arg(long, global = true, env = "MINISHOP_KAFKA_INSTANCE_ID", value_name = "NAME")]
    kafka_instance_id: Option<String>,
    /// Partitions of new topics, 1 to 64.
    #[arg(long, global = true, env = "MINISHOP_TOPIC_PARTITIONS", value_name = "NUMBER", default_value = "8")]
    topic_partitions: String,
    /// Refuse requests that create an order without an idempotency key.
    #[arg(long, global = true, env = "MINISHOP_REQUIRE_IDEMPOTENCY_KEY", value_name = "BOOLEAN", default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    require_idempotency_key: String,
    /// Serve gRPC reflection.
    #[arg(long, global = true, env = "MINISHOP_REFLECTION", value_name = "BOOLEAN", default_value = "true")]
    reflection: String,
    /// Whether to apply schema migrations at start: auto or off.
    #[arg(long, global = true, env = "MINISHOP_MIGRATE", value_name = "WHEN", default_value = "auto")]
    migrate: String,
    /// On shutdown, how long the process reports not ready before its listeners close.
    #[arg(long, global = true, env = "MINISHOP_DRAIN_WAIT", value_name = "DURATION", default_value = "2s")]
    drain_wait: String,
    /// Refuse new orders while more than this many events wait to be published.
    #[arg(long, global = true, env = "MINISHOP_OUTBOX_LIMIT_ROWS", value_name = "NUMBER", default_value = "1000000")]
    outbox_limit_rows: String,
    /// Refuse new orders while the oldest event that waits to be published is older than this.
    #[arg(long, global = true, env = "MINISHOP_OUTBOX_LIMIT_AGE", value_name = "DURATION", default_value = "1h")]
    outbox_limit_age: String,
    /// Maximum backoff before the first retry of a failed event; the maximum quadruples with each further retry.
    #[arg(long, global = true, env = "MINISHOP_RETRY_BASE", value_name = "DURATION", default_value = "1s")]
    retry_base: String,
    /// Maximum backoff before any retry.
    #[arg(long, global = true, env = "MINISHOP_RETRY_CAP", value_name = "DURATION", default_value = "1h")]
    retry_cap: String,
    /// Attempts before an event becomes a dead letter, 1 to 100.
    #[arg(long, global = true, env = "MINISHOP_RETRY_ATTEMPTS", value_name = "NUMBER", default_value = "8")]
    retry_attempts: String,
    /// Log format: pretty or json.
    #[arg(long, global = true, env = "MINISHOP_LOG_FORMAT", value_name = "FORMAT", default_value = "pretty")]
    log_format: String,
    /// Log filter, such as `info,minishop_api=debug`; `info,librdkafka=warn` unless set.
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How long the ids of settled events are kept, to recognize copies; must exceed `retention.ms` of `orders.created`.
    #[arg(long, global = true, env = "MINISHOP_INBOX_RETENTION", value_name = "DURATION", default_value = "14d")]
    inbox_retention: String,
    /// How long the audit log and finished operations are kept.
    #[arg(long, global = true, env = "MINISHOP_AUDIT_RETENTION", value_name = "DURATION", default_value = "365d")]
    audit_retention: String,
    #[command(flatten)]
    handling: HandlerFlags,
    /// Allow listeners beyond loopback, although there is no authentication.
    #[arg(long, global = true, env = "MINISHOP_INSECURE", value_name = "BOOLEAN", default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    insecure: String,
}

/// The joined and checked settings.
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
    /// Redis; without it processes find each other's work by polling.
    pub redis_url: Option<SecretString>,
    /// Prefix of all topics and of the default group.
    pub topic_prefix: String,
    /// Which field is the record key.
    pub event_key: EventKey,
    /// The consumer group.
    pub kafka_group: String,
    /// How long the group waits for a silent member.
    pub kafka_session_timeout: Duration,
    /// How published events are compressed.
    pub kafka_compression: Compression,
    /// The static member name in the group; `None` makes each start a new member.
    pub kafka_instance_id: Option<String>,
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
    /// The backlog above which new orders are shed.
    pub outbox_limit_rows: i64,
    /// Shed new orders when the oldest waiting event is older.
    pub outbox_limit_age: Duration,
    /// How long the inbox remembers an event.
    pub inbox_retention: Duration,
    /// How long audit records and ended operations are kept.
    pub audit_retention: Duration,
    /// How orders are handled.
    pub handling: Handling,
    /// The waits before a failed event is retried.
    pub retry: Backoff,
    /// The attempts of an event before it is a dead letter.
    pub retry_attempts: i32,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log: Option<String>,
}

impl Config {
    /// Returns the bootstrap servers for a command: the configured brokers, or the embedded log of a running server.
    pub fn brokers(&self) -> String {
        self.kafka_brokers.clone().unwrap_or_else(|| self.kafka_addr.to_string())
    }

    /// Returns the file of the embedded store.
    pub fn store_file(&self) -> PathBuf {
        self.data_dir.join("minishop.db")
    }
}

/// The parts that a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// All roles; embedded parts replace servers that are not set.
    Up,
    /// The API, with external servers.
    Api,
    /// The worker, with external servers.
    Worker,
}
