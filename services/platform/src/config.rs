//! Configuration: flags, then environment, then file, then defaults; all problems are reported at once.
//!
//! To add a setting, add an entry to [`Config`]. Its flag, variable, key of the configuration file, help, check and line of
//! `minishop config print` all come from that entry. A rule between two settings goes into `check::relations`.

mod check;
mod entries;
mod file;
mod handler;
mod names;
mod print;
mod problems;
mod setting;
pub mod sources;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use minishop_bus::produce::Compression;
use minishop_contracts::key::EventKey;
use minishop_core::backoff::Backoff;
use secrecy::{ExposeSecret, SecretString};

use crate::hints;
use crate::telemetry::{self, LogFormat};
use entries::{Directory, Secret, derived, optional, path_arg, setting, switch};
use handler::HandlingEntry;
pub use handler::{Handling, Webhook};
pub use problems::Problem;
use setting::{Entry, Given, Settings, settings};
pub use values::duration;
use values::{address, boolean, some_time, whole};

settings! {
    /// The joined and checked settings.
    pub struct Config {
        /// Address of the REST listener, as IP:port; port 0 takes a free port.
        http_addr: SocketAddr = setting("MINISHOP_HTTP_ADDR", "ADDRESS", "127.0.0.1:3000", address);
        /// Address of the gRPC listener, as IP:port.
        grpc_addr: SocketAddr = setting("MINISHOP_GRPC_ADDR", "ADDRESS", "127.0.0.1:50051", address);
        /// Address for health and metrics, as IP:port; 127.0.0.1:9464 unless set, 127.0.0.1:9465 for a separate worker.
        admin_addr: SocketAddr = derived("MINISHOP_ADMIN_ADDR", "ADDRESS", default_admin_addr, address);
        /// Address of the embedded event log, as IP:port.
        kafka_addr: SocketAddr = setting("MINISHOP_KAFKA_ADDR", "ADDRESS", "127.0.0.1:9092", address);
        /// Directory of the embedded store and event log.
        data_dir: PathBuf = Directory { variable: "MINISHOP_DATA_DIR", default: "./.minishop" };
        /// PostgreSQL URL, such as `postgres://user@host:5432/database`; without it, `up` uses the embedded store.
        database_url: Option<SecretString> = Secret {
            variable: "DATABASE_URL",
            value_name: "URL",
            file_help: "File with the PostgreSQL URL, instead of the URL itself; must not be readable by others",
            read: |url| values::database_url(url.expose_secret()).map(|()| url),
        };
        /// Kafka bootstrap servers; without them, `up` uses the embedded event log.
        kafka_brokers: Option<String> = optional("KAFKA_BROKERS", "HOST:PORT,…", values::brokers);
        /// Redis URL, such as `redis://host:6379`, for hints between processes; without a reachable Redis, they poll.
        redis_url: Option<SecretString> = Secret {
            variable: "REDIS_URL",
            value_name: "URL",
            file_help: "File with the Redis URL, instead of the URL itself; must not be readable by others",
            read: |url| hints::check_url(url.expose_secret()).map(|()| url),
        };
        /// Prefix of all topics and of the default consumer group: at most 200 letters, digits, dots, dashes and underscores.
        topic_prefix: String = setting("MINISHOP_TOPIC_PREFIX", "TEXT", "", values::topic_prefix);
        /// Record key of events: customer or order.
        event_key: EventKey = setting("MINISHOP_EVENT_KEY", "FIELD", "customer", values::event_key);
        /// Consumer group of the workers; `<prefix>minishop-worker` unless set.
        kafka_group: String = derived("MINISHOP_KAFKA_GROUP", "NAME", default_group, |name| Ok(name.to_owned()));
        /// Session timeout: the group reassigns the partitions of a worker that is silent for longer.
        kafka_session_timeout: Duration = setting("MINISHOP_KAFKA_SESSION_TIMEOUT", "DURATION", "10s", duration);
        /// Compression of published events: none, gzip, snappy, lz4 or zstd; every consumer must support it.
        kafka_compression: Compression = setting("MINISHOP_KAFKA_COMPRESSION", "CODEC", "none", values::compression);
        /// Static member name in the consumer group (`group.instance.id`): unique per worker, unchanged by a restart.
        kafka_instance_id: Option<String> = optional("MINISHOP_KAFKA_INSTANCE_ID", "NAME", values::instance_id);
        /// Partitions of new topics, 1 to 64.
        topic_partitions: i32 = setting("MINISHOP_TOPIC_PARTITIONS", "NUMBER", "8", |text| whole(text, 1..=64));
        /// Refuse requests that create an order without an idempotency key.
        require_idempotency_key: bool = switch("MINISHOP_REQUIRE_IDEMPOTENCY_KEY");
        /// Serve gRPC reflection.
        reflection: bool = setting("MINISHOP_REFLECTION", "BOOLEAN", "true", boolean);
        /// Whether to apply schema migrations at start: auto or off.
        migrate: bool = setting("MINISHOP_MIGRATE", "WHEN", "auto", values::migrate)
            .shown_as(|migrate| if *migrate { "auto" } else { "off" }.into());
        /// On shutdown, how long the process reports not ready before its listeners close.
        drain_wait: Duration = setting("MINISHOP_DRAIN_WAIT", "DURATION", "2s", duration);
        /// Refuse new orders while more than this many events wait to be published.
        outbox_limit_rows: i64 = setting("MINISHOP_OUTBOX_LIMIT_ROWS", "NUMBER", "1000000", |text| whole(text, 0..=i64::MAX));
        /// Refuse new orders while the oldest event that waits to be published is older than this.
        outbox_limit_age: Duration = setting("MINISHOP_OUTBOX_LIMIT_AGE", "DURATION", "1h", duration);
        /// The waits before a failed event is retried.
        retry: Backoff = RetryEntry;
        /// Attempts before an event becomes a dead letter, 1 to 100.
        retry_attempts: i32 = setting("MINISHOP_RETRY_ATTEMPTS", "NUMBER", "8", |text| whole(text, 1..=100));
        /// Log format: pretty or json.
        log_format: LogFormat = setting("MINISHOP_LOG_FORMAT", "FORMAT", "pretty", values::log_format);
        /// Log filter, such as `info,minishop_api=debug`; `info,librdkafka=warn` unless set.
        log: Option<String> = optional("RUST_LOG", "FILTER", |text| telemetry::check_filter(text).map(|()| text.to_owned()));
        /// How long the ids of settled events are kept, to recognize copies; must exceed `retention.ms` of `orders.created`.
        inbox_retention: Duration = setting("MINISHOP_INBOX_RETENTION", "DURATION", "14d", duration);
        /// How long the audit log and finished operations are kept.
        audit_retention: Duration = setting("MINISHOP_AUDIT_RETENTION", "DURATION", "365d", some_time);
        /// How orders are handled.
        handling: Handling = HandlingEntry;
    }
}

settings! {
    /// The settings of [`Backoff`].
    struct RetrySettings {
        /// Maximum backoff before the first retry of a failed event; the maximum quadruples with each further retry.
        retry_base: Duration = setting("MINISHOP_RETRY_BASE", "DURATION", "1s", some_time);
        /// Maximum backoff before any retry.
        retry_cap: Duration = setting("MINISHOP_RETRY_CAP", "DURATION", "1h", some_time);
    }
}

settings! {
    /// Settings that the check alone needs.
    struct Permissions {
        /// Allow listeners beyond loopback, although there is no authentication.
        insecure: bool = switch("MINISHOP_INSECURE");
    }
}

/// The entry of [`Backoff`].
struct RetryEntry;

impl Entry for RetryEntry {
    type Value = Backoff;

    fn args(&self, _: &str, _: &str) -> Vec<Arg> {
        RetrySettings::args()
    }

    fn read(&self, given: &mut Given) -> Backoff {
        let RetrySettings { retry_base: base, retry_cap: cap } = RetrySettings::read(given);
        Backoff { base, factor: 4, cap }
    }
}

fn default_admin_addr(given: &Given) -> String {
    if given.shape == Shape::Worker { "127.0.0.1:9465" } else { "127.0.0.1:9464" }.to_owned()
}

fn default_group(given: &Given) -> String {
    format!("{}minishop-worker", given.text("MINISHOP_TOPIC_PREFIX").unwrap_or_default())
}

impl Config {
    /// Returns the bootstrap servers: Kafka, or the embedded event log of a running `minishop up`.
    pub fn brokers(&self) -> String {
        self.kafka_brokers.clone().unwrap_or_else(|| self.kafka_addr.to_string())
    }

    /// Returns the file of the embedded store.
    pub fn store_file(&self) -> PathBuf {
        self.data_dir.join("minishop.db")
    }
}

/// The settings as given on the command line, in the environment or in the file, by variable. Not checked yet, so that one check
/// names all that are wrong.
#[derive(Clone, Default)]
pub struct Flags(BTreeMap<String, OsString>);

impl Flags {
    /// Returns the arguments of the command line, in the order of the help.
    fn args() -> Vec<Arg> {
        let help = "TOML configuration file; its keys are the variables below in lower case, without `MINISHOP_`.";
        [vec![path_arg("config", "MINISHOP_CONFIG", "FILE", help)], Config::args(), Permissions::args()].concat()
    }
}

/// Values may be secrets.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Flags").field(&self.0.keys()).finish()
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(Self::args())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |arg: &Arg| {
            let value = matches.get_raw(arg.get_id().as_str())?.next()?;
            Some((arg.get_env()?.to_str()?.to_owned(), value.to_owned()))
        };
        Ok(Self(Self::args().iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The parts that a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// All roles; embedded parts replace servers that are not set.
    Up,
    Api,
    Worker,
}
