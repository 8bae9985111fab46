//! Topic settings under Kafka's names.

use std::time::Duration;

use crate::settings::{Settings, TopicSettings};

/// Kafka's codes for the source of a value.
pub(super) const SOURCE_TOPIC: i8 = 1;
pub(super) const SOURCE_BROKER: i8 = 4;

/// Kafka's codes for the type of a value.
const STRING: i8 = 2;
const INT: i8 = 3;
const LONG: i8 = 5;
const LIST: i8 = 7;

/// One setting as clients see it.
pub(super) struct Entry {
    pub name: &'static str,
    pub value: String,
    pub kind: i8,
}

/// Applies one setting of a create request, or returns why it is invalid. `None` keeps the default.
///
/// Settings that can have only one value here accept that value, so that scripts written for Kafka work.
pub(super) fn apply(settings: &mut TopicSettings, name: &str, value: Option<&str>) -> Result<(), String> {
    let Some(value) = value else { return Ok(()) };
    let wrong = |fits: &str| Err(format!("{name}: {fits}"));
    match name {
        "retention.ms" => match number(value) {
            Ok(ms) => settings.retention = ms.map(Duration::from_millis),
            Err(()) => return wrong("milliseconds, or -1 for no limit"),
        },
        "retention.bytes" => match number(value) {
            Ok(bytes) => settings.retention_bytes = bytes,
            Err(()) => return wrong("bytes, or -1 for no limit"),
        },
        "max.message.bytes" => match value.parse() {
            Ok(bytes @ 1..=16_000_000) => settings.max_message_bytes = bytes,
            _ => return wrong("1 to 16000000 bytes"),
        },
        "cleanup.policy" if value == "delete" => {}
        "compression.type" if value == "producer" => {}
        "message.timestamp.type" if value == "CreateTime" => {}
        "min.insync.replicas" if value == "1" => {}
        "unclean.leader.election.enable" if matches!(value, "true" | "false") => {}
        "cleanup.policy" => return wrong("only delete"),
        "compression.type" => return wrong("only producer"),
        "message.timestamp.type" => return wrong("only CreateTime"),
        "min.insync.replicas" => return wrong("only 1"),
        _ => return wrong("not a setting of this event log"),
    }
    Ok(())
}

/// Parses a count; −1 means `None`.
fn number(value: &str) -> Result<Option<u64>, ()> {
    if value == "-1" {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|_| ())
}

/// Returns all settings of a topic.
pub(super) fn entries(settings: &TopicSettings) -> Vec<Entry> {
    let or_never = |n: Option<String>| n.unwrap_or_else(|| "-1".to_owned());
    let entry = |name, value, kind| Entry { name, value, kind };
    vec![
        entry("cleanup.policy", "delete".to_owned(), LIST),
        entry("compression.type", "producer".to_owned(), STRING),
        entry("max.message.bytes", settings.max_message_bytes.to_string(), INT),
        entry("message.timestamp.type", "CreateTime".to_owned(), STRING),
        entry("min.insync.replicas", "1".to_owned(), INT),
        entry("retention.bytes", or_never(settings.retention_bytes.map(|n| n.to_string())), LONG),
        entry("retention.ms", or_never(settings.retention.map(|age| age.as_millis().to_string())), LONG),
    ]
}

/// Returns the broker's own settings that tools request.
pub(super) fn broker_entries(settings: &Settings) -> Vec<Entry> {
    let entry = |name, value, kind| Entry { name, value, kind };
    vec![
        entry("auto.create.topics.enable", "false".to_owned(), STRING),
        entry("default.replication.factor", "1".to_owned(), INT),
        entry("message.max.bytes", settings.topic.max_message_bytes.to_string(), INT),
        entry("min.insync.replicas", "1".to_owned(), INT),
        entry("num.partitions", settings.partitions.to_string(), INT),
    ]
}
