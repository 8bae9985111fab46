//! Prints the effective settings in the form of the configuration file.

use std::time::Duration;

use super::Config;
use crate::telemetry::LogFormat;

impl Config {
    /// Formats each setting as a line of the configuration file; hides secrets and omits settings without a value.
    pub fn print(&self) -> String {
        let text = |value: &dyn ToString| Some(toml::Value::String(value.to_string()));
        let hidden = |set: bool| set.then(|| toml::Value::String("(hidden)".to_owned()));
        let number = |n: usize| i64::try_from(n).ok().map(toml::Value::Integer);
        let lines = [
            ("http_addr", text(&self.http_addr)),
            ("grpc_addr", text(&self.grpc_addr)),
            ("admin_addr", text(&self.admin_addr)),
            ("kafka_addr", text(&self.kafka_addr)),
            ("data_dir", text(&self.data_dir.display())),
            ("database_url", hidden(self.database_url.is_some())),
            ("redis_url", hidden(self.redis_url.is_some())),
            ("kafka_brokers", self.kafka_brokers.clone().map(toml::Value::String)),
            ("topic_prefix", text(&self.topic_prefix)),
            ("event_key", text(&self.event_key.as_str())),
            ("kafka_group", text(&self.kafka_group)),
            ("kafka_session_timeout", text(&span(self.kafka_session_timeout))),
            ("kafka_compression", text(&self.kafka_compression.as_str())),
            ("kafka_instance_id", self.kafka_instance_id.clone().map(toml::Value::String)),
            ("topic_partitions", Some(i64::from(self.topic_partitions).into())),
            ("require_idempotency_key", Some(self.require_idempotency_key.into())),
            ("reflection", Some(self.reflection.into())),
            ("migrate", text(&if self.migrate { "auto" } else { "off" })),
            ("drain_wait", text(&span(self.drain_wait))),
            ("outbox_limit_rows", Some(self.outbox_limit_rows.into())),
            ("outbox_limit_age", text(&span(self.outbox_limit_age))),
            ("inbox_retention", text(&span(self.inbox_retention))),
            ("audit_retention", text(&span(self.audit_retention))),
            ("handler", text(&self.handling.as_str())),
            ("webhook_url", self.handling.webhook().and_then(|webhook| text(&webhook.url))),
            ("webhook_secret", hidden(self.handling.webhook().is_some())),
            ("webhook_timeout", self.handling.webhook().and_then(|webhook| text(&span(webhook.timeout)))),
            ("webhook_concurrency", self.handling.webhook().and_then(|webhook| number(webhook.concurrency))),
            ("webhook_targets", self.handling.webhook().and_then(|webhook| text(&webhook.targets.as_str()))),
            ("retry_base", text(&span(self.retry.base))),
            ("retry_cap", text(&span(self.retry.cap))),
            ("retry_attempts", Some(i64::from(self.retry_attempts).into())),
            ("log_format", text(&if self.log_format == LogFormat::Json { "json" } else { "pretty" })),
            ("rust_log", self.log.clone().map(toml::Value::String)),
        ];
        lines.into_iter().filter_map(|(key, value)| Some(format!("{key} = {}\n", value?))).collect()
    }
}

/// Formats a duration in the largest unit that is exact.
fn span(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        n if n > 0 && n.is_multiple_of(86_400_000) => format!("{}d", n / 86_400_000),
        n if n > 0 && n.is_multiple_of(3_600_000) => format!("{}h", n / 3_600_000),
        n if n > 0 && n.is_multiple_of(60_000) => format!("{}m", n / 60_000),
        n if n.is_multiple_of(1_000) => format!("{}s", n / 1_000),
        n => format!("{n}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::duration;

    #[test]
    fn a_duration_is_read_as_it_was_written() {
        for text in ["0s", "250ms", "45s", "90s", "10m", "1h", "14d"] {
            assert_eq!(duration(text).map(span).as_deref(), Ok(text));
        }
    }
}
