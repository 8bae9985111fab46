//! Configuration: flags, then environment, then file, then defaults; every problem is named at once.

mod print;
pub mod sources;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use minishop_contracts::key::EventKey;
use secrecy::SecretString;

use crate::telemetry::LogFormat;

/// Every setting that a process takes, as flags and variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// A TOML file whose keys are the variables below in lower case, without `MINISHOP_`.
    #[arg(long = "config", id = "config", global = true, env = "MINISHOP_CONFIG", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Where REST listens; port 0 takes a free one.
    #[arg(long, global = true, env = "MINISHOP_HTTP_ADDR", default_value = "127.0.0.1:3000")]
    http_addr: SocketAddr,
    /// Where gRPC listens.
    #[arg(long, global = true, env = "MINISHOP_GRPC_ADDR", default_value = "127.0.0.1:50051")]
    grpc_addr: SocketAddr,
    /// Where health and metrics listen; a worker that runs apart uses port 9465.
    #[arg(long, global = true, env = "MINISHOP_ADMIN_ADDR")]
    admin_addr: Option<SocketAddr>,
    /// Where the embedded event log listens.
    #[arg(long, global = true, env = "MINISHOP_KAFKA_ADDR", default_value = "127.0.0.1:9092")]
    kafka_addr: SocketAddr,
    /// Where the embedded stores live.
    #[arg(long, global = true, env = "MINISHOP_DATA_DIR", default_value = "./.minishop")]
    data_dir: PathBuf,
    /// PostgreSQL, as a URL; without it `up` uses the embedded store.
    #[arg(long, global = true, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Kafka bootstrap servers; without them `up` uses the embedded event log.
    #[arg(long, global = true, env = "KAFKA_BROKERS")]
    kafka_brokers: Option<String>,
    /// Prefix of all topics and of the default group.
    #[arg(long, global = true, env = "MINISHOP_TOPIC_PREFIX", default_value = "")]
    topic_prefix: String,
    /// Which field is the record key: customer or order.
    #[arg(long, global = true, env = "MINISHOP_EVENT_KEY", default_value = "customer", value_parser = event_key)]
    event_key: EventKey,
    /// The consumer group; `<prefix>minishop-worker` unless given.
    #[arg(long, global = true, env = "MINISHOP_KAFKA_GROUP")]
    kafka_group: Option<String>,
    /// How long the group waits for a silent member.
    #[arg(long, global = true, env = "MINISHOP_KAFKA_SESSION_TIMEOUT", default_value = "45s", value_parser = duration)]
    kafka_session_timeout: Duration,
    /// Partitions of new topics, 1 to 64.
    #[arg(long, global = true, env = "MINISHOP_TOPIC_PARTITIONS", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=64))]
    topic_partitions: i32,
    /// Refuse creates without an idempotency key.
    #[arg(long, global = true, env = "MINISHOP_REQUIRE_IDEMPOTENCY_KEY", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    require_idempotency_key: bool,
    /// Serve gRPC reflection.
    #[arg(long, global = true, env = "MINISHOP_REFLECTION", default_value_t = true, action = clap::ArgAction::Set)]
    reflection: bool,
    /// Apply migrations at start: auto or off.
    #[arg(long, global = true, env = "MINISHOP_MIGRATE", default_value = "auto", value_parser = ["auto", "off"])]
    migrate: String,
    /// How long readiness is withdrawn before the listeners close.
    #[arg(long, global = true, env = "MINISHOP_DRAIN_WAIT", default_value = "2s", value_parser = duration)]
    drain_wait: Duration,
    /// Shed new orders above so many waiting events.
    #[arg(long, global = true, env = "MINISHOP_OUTBOX_LIMIT_ROWS", default_value_t = 1_000_000)]
    outbox_limit_rows: i64,
    /// Shed new orders when the oldest waiting event is older.
    #[arg(long, global = true, env = "MINISHOP_OUTBOX_LIMIT_AGE", default_value = "1h", value_parser = duration)]
    outbox_limit_age: Duration,
    /// How log lines look.
    #[arg(long, global = true, env = "MINISHOP_LOG_FORMAT", default_value = "pretty")]
    log_format: LogFormat,
    /// Which log lines are written.
    #[arg(long, global = true, env = "RUST_LOG")]
    log: Option<String>,
    /// Listen beyond loopback although there is no authentication yet.
    #[arg(long, global = true, env = "MINISHOP_INSECURE", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    insecure: bool,
}

/// Everything that can be set, joined and checked.
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
    /// Prefix of all topics and of the default group.
    pub topic_prefix: String,
    /// Which field is the record key.
    pub event_key: EventKey,
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
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log: Option<String>,
}

/// Which parts a command serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// All roles; embedded parts stand in for what is not set.
    Up,
    /// The API on servers of their own.
    Api,
    /// The worker on servers of their own.
    Worker,
}

impl Flags {
    /// Joins and checks the settings; the error has one line for each problem.
    pub fn check(self, shape: Shape) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let admin_default = if shape == Shape::Worker { "127.0.0.1:9465" } else { "127.0.0.1:9464" };
        let admin_addr = self.admin_addr.unwrap_or_else(|| admin_default.parse().expect("a literal address"));
        if shape != Shape::Up {
            for (name, set) in [("DATABASE_URL", self.database_url.is_some()), ("KAFKA_BROKERS", self.kafka_brokers.is_some())] {
                if !set {
                    problems.push(format!(
                        "error[CONFIG_RELATION] {name}: is not set; a process that is not `up` needs servers of their own"
                    ));
                }
            }
        }
        let prefix_fits = self.topic_prefix.len() <= 200
            && self.topic_prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !prefix_fits {
            problems.push("error[CONFIG_VALUE] MINISHOP_TOPIC_PREFIX: has a character that no topic may have; use letters, digits, dot, dash, underscore".to_owned());
        }
        if let Some(url) =
            self.database_url.as_deref().filter(|url| !url.starts_with("postgres://") && !url.starts_with("postgresql://"))
        {
            let scheme = url.split(':').next().unwrap_or_default().chars().take(20).collect::<String>();
            problems.push(format!(
                "error[CONFIG_VALUE] DATABASE_URL: begins with `{scheme}`; give postgres://user@host:port/database"
            ));
        }
        let mut listeners = vec![("MINISHOP_ADMIN_ADDR", admin_addr)];
        if shape != Shape::Worker {
            listeners.extend([("MINISHOP_HTTP_ADDR", self.http_addr), ("MINISHOP_GRPC_ADDR", self.grpc_addr)]);
        }
        if shape == Shape::Up && self.kafka_brokers.is_none() {
            listeners.push(("MINISHOP_KAFKA_ADDR", self.kafka_addr));
        }
        for (n, (name, addr)) in listeners.iter().enumerate() {
            if let Some((other, _)) = listeners[..n].iter().find(|(_, earlier)| earlier == addr && addr.port() != 0) {
                problems
                    .push(format!("error[CONFIG_RELATION] {name}: listens on {addr}, as {other} does; give each its own port"));
            }
            if !addr.ip().is_loopback() && *name != "MINISHOP_ADMIN_ADDR" && !self.insecure {
                problems.push(format!("error[INSECURE_BIND] {name}: {addr} is not loopback, and there is no authentication; bind 127.0.0.1 or say --insecure"));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Config {
            http_addr: self.http_addr,
            grpc_addr: self.grpc_addr,
            admin_addr,
            kafka_addr: self.kafka_addr,
            data_dir: self.data_dir,
            database_url: self.database_url.map(SecretString::from),
            kafka_brokers: self.kafka_brokers,
            kafka_group: self.kafka_group.unwrap_or_else(|| format!("{}minishop-worker", self.topic_prefix)),
            topic_prefix: self.topic_prefix,
            event_key: self.event_key,
            kafka_session_timeout: self.kafka_session_timeout,
            topic_partitions: self.topic_partitions,
            require_idempotency_key: self.require_idempotency_key,
            reflection: self.reflection,
            migrate: self.migrate == "auto",
            drain_wait: self.drain_wait,
            outbox_limit_rows: self.outbox_limit_rows,
            outbox_limit_age: self.outbox_limit_age,
            log_format: self.log_format,
            log: self.log,
        })
    }
}

fn event_key(text: &str) -> Result<EventKey, String> {
    EventKey::parse(text).ok_or_else(|| "give customer or order".to_owned())
}

/// Reads a duration such as `250ms`, `5s`, `10m` or `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| "give a whole number and a unit, such as 250ms, 5s, 10m or 1h".to_owned())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("give a unit: ms, s, m or h".to_owned()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        flags: Flags,
    }

    fn check(args: &[&str], shape: Shape) -> Result<Config, Vec<String>> {
        Cli::try_parse_from([&["minishop"], args].concat()).expect("flags of the right form").flags.check(shape)
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let problems = check(&["--http-addr", "127.0.0.1:9464", "--grpc-addr", "0.0.0.0:1", "--topic-prefix", "a/b"], Shape::Up)
            .unwrap_err();
        let codes: Vec<_> = problems.iter().map(|p| p.split(['[', ']']).nth(1).unwrap_or_default()).collect();
        assert_eq!(codes, ["CONFIG_VALUE", "CONFIG_RELATION", "INSECURE_BIND"], "{problems:#?}");
    }

    #[test]
    fn a_role_of_its_own_needs_servers() {
        let problems = check(&[], Shape::Worker).unwrap_err();
        assert!(problems[0].contains("DATABASE_URL") && problems[1].contains("KAFKA_BROKERS"), "{problems:#?}");
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = check(&["--database-url", "postgres://u:hunter2@h/d"], Shape::Up).expect("a good configuration");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h"), Ok(Duration::from_hours(1)));
        for bad in ["5", "-1s", "5 parsecs", "", "s", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
