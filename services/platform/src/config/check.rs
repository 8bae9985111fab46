//! Checks the settings, each and against each other, and reports everything that is wrong with them.

use std::fmt::Write as _;

use super::problems::Problems;
use super::setting::{Given, Lines, Settings as _};
use super::{Config, Flags, Permissions, Problem, Shape};

impl Flags {
    /// Joins and checks the settings. The error includes `problems`, from reading their names.
    pub fn check(self, shape: Shape, problems: Vec<Problem>) -> Result<Config, Vec<Problem>> {
        self.read(shape, problems).map(|(config, _)| config)
    }

    /// Formats each effective setting as a line of the configuration file; hides secrets and omits settings without a value. Fails
    /// as [`Self::check`] does.
    pub fn print(self, shape: Shape, problems: Vec<Problem>) -> Result<String, Vec<Problem>> {
        let (_, lines) = self.read(shape, problems)?;
        let mut text = String::new();
        for (key, value) in lines {
            let _ = writeln!(text, "{key} = {value}");
        }
        Ok(text)
    }

    fn read(self, shape: Shape, problems: Vec<Problem>) -> Result<(Config, Lines), Vec<Problem>> {
        let mut given = Given::new(self, shape, Problems(problems));
        let config = Config::read(&mut given);
        let lines = std::mem::take(&mut given.lines);
        let permissions = Permissions::read(&mut given);
        relations(&config, shape, &permissions, &mut given.problems);
        let Problems(problems) = given.problems;
        if problems.is_empty() { Ok((config, lines)) } else { Err(problems) }
    }
}

/// Checks the settings against each other. Those that have a problem already get no second one.
fn relations(config: &Config, shape: Shape, permissions: &Permissions, found: &mut Problems) {
    let embedded = shape == Shape::Up;
    for (name, set) in [("DATABASE_URL", config.database_url.is_some()), ("KAFKA_BROKERS", config.kafka_brokers.is_some())] {
        if !set && !embedded && !found.concern(name) {
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
    if embedded && config.kafka_brokers.is_none() && !found.concern("KAFKA_BROKERS") {
        listeners.push(("MINISHOP_KAFKA_ADDR", config.kafka_addr));
    }
    listeners.retain(|(name, _)| !found.concern(name));
    for (n, (name, addr)) in listeners.iter().enumerate() {
        if let Some((other, _)) = listeners[..n].iter().find(|(_, earlier)| earlier == addr && addr.port() != 0) {
            found.add("CONFIG_RELATION", name, format!("{addr} is also the address of {other}; give each its own port"));
        }
        if !addr.ip().is_loopback() && *name != "MINISHOP_ADMIN_ADDR" && !permissions.insecure {
            let text = format!("{addr} is not loopback, and there is no authentication; use 127.0.0.1 or set --insecure");
            found.add("INSECURE_BIND", name, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;
    use clap::Parser;
    use secrecy::ExposeSecret as _;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        flags: Flags,
    }

    fn flags(args: &[&str]) -> Flags {
        Cli::try_parse_from([&["minishop"], args].concat()).expect("flags of the right form").flags
    }

    fn check(args: &[&str], shape: Shape) -> Result<Config, Vec<String>> {
        flags(args).check(shape, Vec::new()).map_err(|problems| problems.iter().map(ToString::to_string).collect())
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
            "CONFIG_VALUE MINISHOP_KAFKA_ADDR",
            "CONFIG_VALUE DATABASE_URL",
            "CONFIG_VALUE KAFKA_BROKERS",
            "CONFIG_VALUE REDIS_URL",
            "CONFIG_VALUE MINISHOP_TOPIC_PREFIX",
            "CONFIG_VALUE MINISHOP_EVENT_KEY",
            "CONFIG_VALUE MINISHOP_KAFKA_COMPRESSION",
            "CONFIG_VALUE MINISHOP_KAFKA_INSTANCE_ID",
            "CONFIG_VALUE MINISHOP_TOPIC_PARTITIONS",
            "CONFIG_VALUE MINISHOP_REFLECTION",
            "CONFIG_VALUE MINISHOP_DRAIN_WAIT",
            "CONFIG_VALUE MINISHOP_RETRY_CAP",
            "CONFIG_VALUE MINISHOP_RETRY_ATTEMPTS",
            "CONFIG_VALUE MINISHOP_LOG_FORMAT",
            "CONFIG_VALUE MINISHOP_AUDIT_RETENTION",
            "CONFIG_VALUE MINISHOP_HANDLER",
            "CONFIG_VALUE MINISHOP_WEBHOOK_URL",
            "CONFIG_VALUE MINISHOP_WEBHOOK_SECRET",
            "CONFIG_VALUE MINISHOP_WEBHOOK_TIMEOUT",
            "CONFIG_VALUE MINISHOP_WEBHOOK_CONCURRENCY",
            "CONFIG_VALUE MINISHOP_WEBHOOK_TARGETS",
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
        let empty = ["--handler", "webhook", "--webhook-url", "http://h/orders", "--webhook-secret", ""];
        assert_eq!(named(&empty, Shape::Up), needs[1..]);
        let secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
        let args = ["--handler", "webhook", "--webhook-url", "http://h/orders", "--webhook-secret", secret];
        let config = check(&args, Shape::Up).expect("a good configuration");
        assert!(config.handling.webhook().is_some_and(|webhook| webhook.timeout == Duration::from_secs(10)));
        let printed = flags(&args).print(Shape::Up, Vec::new()).expect("a good configuration");
        assert!(printed.contains("webhook_secret = \"(hidden)\""), "{printed}");
        assert!(!format!("{config:?}{printed}").contains(secret));
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
