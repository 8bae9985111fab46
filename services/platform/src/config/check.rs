//! Joins the settings, and reports everything that is wrong with them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use minishop_bus::produce::Compression;
use minishop_contracts::key::EventKey;
use minishop_core::backoff::Backoff;
use secrecy::{ExposeSecret, SecretString};

use super::values::{self, shown};
use super::{Config, Flags, Shape};
use crate::hints;
use crate::telemetry::{self, LogFormat};

/// The factor between the ceilings of successive retries.
const RETRY_FACTOR: u32 = 4;

/// Problems, one line each: `error[CODE] setting: what it is, what it must be`.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, code: &str, setting: &str, text: &str) {
        self.0.push(format!("error[{code}] {setting}: {text}"));
    }

    /// Parses a value. Reports an error and returns `meanwhile` for it, so that the rest can be checked.
    pub(super) fn read<T>(&mut self, setting: &str, text: &str, meanwhile: T, read: impl FnOnce(&str) -> Result<T, String>) -> T {
        read(text).unwrap_or_else(|problem| {
            self.add("CONFIG_VALUE", setting, &format!("{} {problem}", shown(text)));
            meanwhile
        })
    }

    fn address(&mut self, setting: &str, text: &str) -> SocketAddr {
        self.read(setting, text, SocketAddr::from(([127, 0, 0, 1], 0)), values::address)
    }

    fn duration(&mut self, setting: &str, text: &str) -> Duration {
        self.read(setting, text, Duration::ZERO, values::duration)
    }

    fn boolean(&mut self, setting: &str, text: &str) -> bool {
        self.read(setting, text, false, values::boolean)
    }

    /// Returns a secret from its own setting or from the file that another setting names.
    pub(super) fn secret(&mut self, setting: &str, given: Option<SecretString>, file: Option<&Path>) -> Option<SecretString> {
        let (given, file) =
            (given.filter(|secret| !secret.expose_secret().is_empty()), file.filter(|p| !p.as_os_str().is_empty()));
        let Some(path) = file else { return given };
        if given.is_some() {
            self.add("CONFIG_RELATION", setting, &format!("is set together with {setting}_FILE; set only one of them"));
        }
        values::secret_file(path)
            .map_err(|problem| self.add("SECRET_FILE", &format!("{setting}_FILE"), &format!("{} {problem}", path.display())))
            .ok()
    }

    /// Checks an address that may contain a password: no part of it may be shown.
    fn url(&mut self, setting: &str, url: Option<&SecretString>, check: fn(&str) -> Result<(), String>) {
        if let Some(Err(problem)) = url.map(|url| check(url.expose_secret())) {
            self.add("CONFIG_VALUE", setting, &problem);
        }
    }
}

impl Flags {
    /// Joins and checks the settings; the error has one line per problem.
    pub fn check(self, shape: Shape) -> Result<Config, Vec<String>> {
        let mut found = Problems::default();
        let database_url = found.secret("DATABASE_URL", self.database_url, self.database_url_file.as_deref());
        found.url("DATABASE_URL", database_url.as_ref(), values::database_url);
        let redis_url = found.secret("REDIS_URL", self.redis_url, self.redis_url_file.as_deref());
        found.url("REDIS_URL", redis_url.as_ref(), hints::check_url);
        let kafka_brokers = self.kafka_brokers.filter(|brokers| !brokers.is_empty());
        if let Some(brokers) = &kafka_brokers {
            found.read("KAFKA_BROKERS", brokers, (), values::brokers);
        }
        let admin_default = if shape == Shape::Worker { "127.0.0.1:9465" } else { "127.0.0.1:9464" };
        let config = Config {
            http_addr: found.address("MINISHOP_HTTP_ADDR", &self.http_addr),
            grpc_addr: found.address("MINISHOP_GRPC_ADDR", &self.grpc_addr),
            admin_addr: found.address("MINISHOP_ADMIN_ADDR", self.admin_addr.as_deref().unwrap_or(admin_default)),
            kafka_addr: found.address("MINISHOP_KAFKA_ADDR", &self.kafka_addr),
            data_dir: self.data_dir,
            database_url,
            kafka_brokers,
            redis_url,
            kafka_group: self.kafka_group.unwrap_or_else(|| format!("{}minishop-worker", self.topic_prefix)),
            topic_prefix: found.read("MINISHOP_TOPIC_PREFIX", &self.topic_prefix, String::new(), values::topic_prefix),
            event_key: found.read("MINISHOP_EVENT_KEY", &self.event_key, EventKey::Customer, values::event_key),
            kafka_session_timeout: found.duration("MINISHOP_KAFKA_SESSION_TIMEOUT", &self.kafka_session_timeout),
            kafka_compression: found.read(
                "MINISHOP_KAFKA_COMPRESSION",
                &self.kafka_compression,
                Compression::None,
                values::compression,
            ),
            kafka_instance_id: self.kafka_instance_id.filter(|name| !name.is_empty()).and_then(|name| {
                found.read("MINISHOP_KAFKA_INSTANCE_ID", &name, None, |text| values::instance_id(text).map(Some))
            }),
            topic_partitions: found.read("MINISHOP_TOPIC_PARTITIONS", &self.topic_partitions, 8, |text| {
                values::whole(text, 1..=64).and_then(|number| i32::try_from(number).map_err(|error| error.to_string()))
            }),
            require_idempotency_key: found.boolean("MINISHOP_REQUIRE_IDEMPOTENCY_KEY", &self.require_idempotency_key),
            reflection: found.boolean("MINISHOP_REFLECTION", &self.reflection),
            migrate: found.read("MINISHOP_MIGRATE", &self.migrate, true, values::migrate),
            drain_wait: found.duration("MINISHOP_DRAIN_WAIT", &self.drain_wait),
            outbox_limit_rows: found
                .read("MINISHOP_OUTBOX_LIMIT_ROWS", &self.outbox_limit_rows, 0, |text| values::whole(text, 0..=i64::MAX)),
            outbox_limit_age: found.duration("MINISHOP_OUTBOX_LIMIT_AGE", &self.outbox_limit_age),
            inbox_retention: found.duration("MINISHOP_INBOX_RETENTION", &self.inbox_retention),
            audit_retention: found.read("MINISHOP_AUDIT_RETENTION", &self.audit_retention, Duration::ZERO, values::some_time),
            handling: self.handling.check(&mut found),
            retry: Backoff {
                base: found.read("MINISHOP_RETRY_BASE", &self.retry_base, Duration::from_secs(1), values::some_time),
                factor: RETRY_FACTOR,
                cap: found.read("MINISHOP_RETRY_CAP", &self.retry_cap, Duration::from_hours(1), values::some_time),
            },
            retry_attempts: found.read("MINISHOP_RETRY_ATTEMPTS", &self.retry_attempts, 8, |text| {
                values::whole(text, 1..=100).and_then(|number| i32::try_from(number).map_err(|error| error.to_string()))
            }),
            log_format: found.read("MINISHOP_LOG_FORMAT", &self.log_format, LogFormat::Pretty, values::log_format),
            log: self.log.filter(|filter| !filter.is_empty()),
        };
        if let Some(filter) = &config.log {
            found.read("RUST_LOG", filter, (), telemetry::check_filter);
        }
        let insecure = found.boolean("MINISHOP_INSECURE", &self.insecure);
        relations(&config, shape, insecure, &mut found);
        if found.0.is_empty() { Ok(config) } else { Err(found.0) }
    }
}

/// Checks the settings against each other.
fn relations(config: &Config, shape: Shape, insecure: bool, found: &mut Problems) {
    let embedded = shape == Shape::Up;
    for (name, set) in [("DATABASE_URL", config.database_url.is_some()), ("KAFKA_BROKERS", config.kafka_brokers.is_some())] {
        // A file that cannot be read is already reported.
        let named = found.0.iter().any(|line| line.contains(&format!(" {name}")));
        if !set && !embedded && !named {
            found.add("CONFIG_RELATION", name, "is not set; set it, only `minishop up` has an embedded replacement");
        }
    }
    if config.retry.base > config.retry.cap {
        found.add("CONFIG_RELATION", "MINISHOP_RETRY_BASE", "is longer than MINISHOP_RETRY_CAP; give a shorter duration");
    }
    let mut listeners = vec![("MINISHOP_ADMIN_ADDR", config.admin_addr)];
    if shape != Shape::Worker {
        listeners.extend([("MINISHOP_HTTP_ADDR", config.http_addr), ("MINISHOP_GRPC_ADDR", config.grpc_addr)]);
    }
    if embedded && config.kafka_brokers.is_none() {
        listeners.push(("MINISHOP_KAFKA_ADDR", config.kafka_addr));
    }
    for (n, (name, addr)) in listeners.iter().enumerate() {
        if let Some((other, _)) = listeners[..n].iter().find(|(_, earlier)| earlier == addr && addr.port() != 0) {
            found.add("CONFIG_RELATION", name, &format!("{addr} is also the address of {other}; give each its own port"));
        }
        if !addr.ip().is_loopback() && *name != "MINISHOP_ADMIN_ADDR" && !insecure {
            let text = format!("{addr} is not loopback, and there is no authentication; use 127.0.0.1 or set --insecure");
            found.add("INSECURE_BIND", name, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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

    /// The codes and settings reported, in order.
    fn named(args: &[&str], shape: Shape) -> Vec<String> {
        let problems = check(args, shape).expect_err("something is wrong");
        let start =
            |line: &String| line.strip_prefix("error[").and_then(|l| l.split_once(": ")).map(|(s, _)| s.replace("] ", " "));
        problems.iter().map(|line| start(line).unwrap_or_else(|| panic!("not in the form of a problem: {line}"))).collect()
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let args = [
            "--http-addr",
            "127.0.0.1:9464",
            "--grpc-addr",
            "0.0.0.0:1",
            "--kafka-addr",
            "nonsense",
            "--topic-prefix",
            "a/b",
            "--drain-wait",
            "5",
            "--event-key",
            "product",
            "--kafka-instance-id",
            "a b",
            "--log-format",
            "xml",
            "--kafka-compression",
            "brotli",
            "--topic-partitions",
            "65",
            "--reflection",
            "maybe",
            "--kafka-brokers",
            "http://h:1",
            "--database-url",
            "mysql://h/d",
            "--redis-url",
            "http://h",
            "--audit-retention",
            "0s",
            "--handler",
            "mail",
            "--webhook-url",
            "ftp://x",
            "--webhook-secret",
            "whsec_c2hvcnQ=",
            "--webhook-timeout",
            "6m",
            "--webhook-concurrency",
            "0",
            "--webhook-targets",
            "some",
            "--retry-base",
            "2h",
            "--retry-cap",
            "0s",
            "--retry-attempts",
            "0",
        ];
        let expected = [
            "CONFIG_VALUE DATABASE_URL",
            "CONFIG_VALUE REDIS_URL",
            "CONFIG_VALUE KAFKA_BROKERS",
            "CONFIG_VALUE MINISHOP_KAFKA_ADDR",
            "CONFIG_VALUE MINISHOP_TOPIC_PREFIX",
            "CONFIG_VALUE MINISHOP_EVENT_KEY",
            "CONFIG_VALUE MINISHOP_KAFKA_COMPRESSION",
            "CONFIG_VALUE MINISHOP_KAFKA_INSTANCE_ID",
            "CONFIG_VALUE MINISHOP_TOPIC_PARTITIONS",
            "CONFIG_VALUE MINISHOP_REFLECTION",
            "CONFIG_VALUE MINISHOP_DRAIN_WAIT",
            "CONFIG_VALUE MINISHOP_AUDIT_RETENTION",
            "CONFIG_VALUE MINISHOP_HANDLER",
            "CONFIG_VALUE MINISHOP_WEBHOOK_URL",
            "CONFIG_VALUE MINISHOP_WEBHOOK_SECRET",
            "CONFIG_VALUE MINISHOP_WEBHOOK_TIMEOUT",
            "CONFIG_VALUE MINISHOP_WEBHOOK_CONCURRENCY",
            "CONFIG_VALUE MINISHOP_WEBHOOK_TARGETS",
            "CONFIG_VALUE MINISHOP_RETRY_CAP",
            "CONFIG_VALUE MINISHOP_RETRY_ATTEMPTS",
            "CONFIG_VALUE MINISHOP_LOG_FORMAT",
            "CONFIG_RELATION MINISHOP_RETRY_BASE",
            "CONFIG_RELATION MINISHOP_HTTP_ADDR",
            "INSECURE_BIND MINISHOP_GRPC_ADDR",
        ];
        assert_eq!(named(&args, Shape::Up), expected);
    }

    #[test]
    fn a_role_of_its_own_needs_servers() {
        assert_eq!(named(&[], Shape::Worker), ["CONFIG_RELATION DATABASE_URL", "CONFIG_RELATION KAFKA_BROKERS"]);
        assert!(check(&[], Shape::Up).is_ok());
    }

    #[test]
    fn the_webhook_handler_needs_an_endpoint_and_a_secret() {
        let needs = ["CONFIG_VALUE MINISHOP_WEBHOOK_URL", "CONFIG_VALUE MINISHOP_WEBHOOK_SECRET"];
        assert_eq!(named(&["--handler", "webhook"], Shape::Up), needs);
        let secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
        let args = ["--handler", "webhook", "--webhook-url", "http://h/orders", "--webhook-secret", secret];
        let config = check(&args, Shape::Up).expect("a good configuration");
        assert!(config.handling.webhook().is_some_and(|webhook| webhook.timeout == Duration::from_secs(10)));
        assert!(!format!("{config:?}{}", config.print()).contains(secret));
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = check(&["--database-url", "postgres://u:hunter2@h/d"], Shape::Up).expect("a good configuration");
        assert!(!format!("{config:?}").contains("hunter2"));
        for bad in ["mysql://u:hunter2@h/d", "postgres://u:hunter2@x@h/d", "postgres://u:hunter2@/d", "hunter2"] {
            let problems = check(&["--database-url", bad], Shape::Up).expect_err("a bad address").concat();
            assert!(problems.contains("CONFIG_VALUE") && !problems.contains("hunter2"), "{problems}");
        }
        for bad in ["http://u:hunter2@h", "redis://u:hunter2@h:port", "hunter2"] {
            let problems = check(&["--redis-url", bad], Shape::Up).expect_err("a bad address").concat();
            assert!(problems.contains("CONFIG_VALUE") && !problems.contains("hunter2"), "{problems}");
        }
        let flags = Cli::try_parse_from(["minishop", "--database-url", "postgres://u:hunter2@h/d"]).expect("flags");
        assert!(!format!("{flags:?}").contains("hunter2"));
    }

    #[test]
    fn a_secret_is_read_from_a_file_that_only_its_owner_reads() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("url");
        let file = path.to_str().expect("UTF-8");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("permitted");
        };
        assert_eq!(named(&["--database-url-file", file], Shape::Up), ["SECRET_FILE DATABASE_URL_FILE"], "missing");
        write("", 0o600);
        assert_eq!(named(&["--database-url-file", file], Shape::Api)[0], "SECRET_FILE DATABASE_URL_FILE", "empty");
        write("postgres://u:hunter2@h/d\n", 0o644);
        assert_eq!(named(&["--database-url-file", file], Shape::Up), ["SECRET_FILE DATABASE_URL_FILE"], "readable by others");
        write("postgres://u:hunter2@h/d\n", 0o600);
        let config = check(&["--database-url-file", file], Shape::Up).expect("a good file");
        assert_eq!(config.database_url.expect("read").expose_secret(), "postgres://u:hunter2@h/d");
        let both = ["--database-url-file", file, "--database-url", "postgres://h/d"];
        assert_eq!(named(&both, Shape::Up), ["CONFIG_RELATION DATABASE_URL"]);
        write("mysql://u:hunter2@h/d", 0o600);
        assert_eq!(named(&["--database-url-file", file], Shape::Up), ["CONFIG_VALUE DATABASE_URL"]);
    }
}
