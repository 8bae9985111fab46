//! Topics: listing them, and creating the missing ones.

use std::time::{Duration, Instant};

use anyhow::Context;
use minishop_contracts::topics;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The shortest safe retention: a shorter one does not outlast an outage over a weekend.
pub const SAFE_RETENTION: Duration = Duration::from_hours(7 * 24);

/// Returns the size of the largest record in our topics, in bytes. A dead letter's value is a whole record, and its headers add
/// more.
pub const fn largest_record(is_dead_letters: bool) -> u32 {
    if is_dead_letters { 2_000_000 } else { 1_000_000 }
}

/// A topic as the brokers describe it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Topic {
    /// The name, prefix included.
    pub name: String,
    pub partitions: usize,
    /// The replicas of the partition with the fewest.
    pub replicas: usize,
}

/// Topic settings that limit its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long records are kept; `None` means for ever.
    pub retention: Option<Duration>,
    /// Whether compaction may remove all but the newest record of a key.
    pub compacted: bool,
    /// The largest batch, in bytes.
    pub largest: u64,
}

/// The result of creating one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Made {
    /// It was missing.
    Created,
    /// It existed; its settings are unchanged.
    Existed,
}

/// Lists all topics. Fails if no broker answers within `patience`.
pub async fn list(brokers: &str, patience: Duration) -> anyhow::Result<Vec<Topic>> {
    let client: BaseConsumer = config(brokers).create().context("cannot create a Kafka client")?;
    let ask = move || client.fetch_metadata(None, patience).map(|metadata| metadata.topics().iter().map(describe).collect());
    tokio::task::spawn_blocking(ask).await?.with_context(|| format!("no broker answers at {brokers}"))
}

/// Returns whether a topic exists. Fails if no broker answers within `patience`.
pub async fn exists(brokers: &str, topic: &str, patience: Duration) -> anyhow::Result<bool> {
    let client: BaseConsumer = config(brokers).create().context("cannot create a Kafka client")?;
    let name = topic.to_owned();
    let ask = move || {
        let metadata = client.fetch_metadata(Some(&name), patience)?;
        Ok::<_, KafkaError>(metadata.topics().iter().any(|topic| topic.name() == name && topic.error().is_none()))
    };
    tokio::task::spawn_blocking(ask).await?.with_context(|| format!("no broker answers at {brokers}"))
}

/// Returns which of our topics do not exist.
pub async fn missing(brokers: &str, prefix: &str, patience: Duration) -> anyhow::Result<Vec<String>> {
    let there = list(brokers, patience).await?;
    let wanted = topics::ALL.iter().map(|topic| topics::prefixed(prefix, topic));
    Ok(wanted.filter(|name| !there.iter().any(|topic| topic.name == *name)).collect())
}

/// Returns the settings with which our topics are created, overriding the brokers' defaults.
pub fn settings_of_new(name: &str, prefix: &str) -> [(&'static str, String); 3] {
    let dead_letters = name == topics::prefixed(prefix, topics::CREATED_DEAD_LETTERS);
    [
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", SAFE_RETENTION.as_millis().to_string()),
        ("max.message.bytes", largest_record(dead_letters).to_string()),
    ]
}

/// Creates our topics with the brokers' default replication, and waits until the brokers list them. Existing topics are left
/// unchanged.
pub async fn create(brokers: &str, prefix: &str, partitions: i32, patience: Duration) -> anyhow::Result<Vec<(String, Made)>> {
    let client: AdminClient<DefaultClientContext> = config(brokers).create().context("cannot create a Kafka client")?;
    let names: Vec<String> = topics::ALL.iter().map(|topic| topics::prefixed(prefix, topic)).collect();
    let settings: Vec<_> = names.iter().map(|name| settings_of_new(name, prefix)).collect();
    let new = names.iter().zip(&settings).map(|(name, settings)| {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
    });
    let new: Vec<NewTopic<'_>> = new.collect();
    let options = AdminOptions::new().request_timeout(Some(patience)).operation_timeout(Some(patience));
    let results = client.create_topics(&new, &options).await.with_context(|| format!("no broker answers at {brokers}"))?;
    let mut made = Vec::new();
    for result in results {
        match result {
            Ok(name) => made.push((name, Made::Created)),
            Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => made.push((name, Made::Existed)),
            Err((name, code)) => anyhow::bail!("error[DEPENDENCY_REFUSED] {name}: {code}"),
        }
    }
    // The brokers learn of a new topic a moment after its creation.
    let end = Instant::now() + patience;
    while !missing(brokers, prefix, patience).await?.is_empty() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(made)
}

/// Returns topics' settings, in the order of `names`.
pub async fn settings(brokers: &str, names: &[&str], patience: Duration) -> anyhow::Result<Vec<Settings>> {
    if names.is_empty() {
        // An empty request is refused.
        return Ok(Vec::new());
    }
    let client: AdminClient<DefaultClientContext> = config(brokers).create().context("cannot create a Kafka client")?;
    let options = AdminOptions::new().request_timeout(Some(patience));
    let wanted: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let described = client.describe_configs(&wanted, &options).await;
    let described = described.with_context(|| format!("no broker answers at {brokers}"))?;
    anyhow::ensure!(described.len() == names.len(), "the brokers described {} of {} topics", described.len(), names.len());
    let read = |(name, resource): (&&str, Result<ConfigResource, RDKafkaErrorCode>)| {
        resource.map_err(anyhow::Error::new).and_then(|resource| read_settings(&resource)).with_context(|| (*name).to_owned())
    };
    names.iter().zip(described).map(read).collect()
}

fn read_settings(resource: &ConfigResource) -> anyhow::Result<Settings> {
    let value = |name: &str| {
        let value = resource.get(name).and_then(|entry| entry.value.as_deref());
        value.with_context(|| format!("the brokers do not report {name}"))
    };
    let millis: i64 = value("retention.ms")?.parse()?;
    Ok(Settings {
        retention: u64::try_from(millis).ok().map(Duration::from_millis),
        compacted: value("cleanup.policy")?.split(',').any(|policy| policy.trim() == "compact"),
        largest: value("max.message.bytes")?.parse()?,
    })
}

/// Returns librdkafka's version.
pub fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", "minishop").set("allow.auto.create.topics", "false");
    config
}

fn describe(topic: &rdkafka::metadata::MetadataTopic) -> Topic {
    let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
    Topic { name: topic.name().to_owned(), partitions: topic.partitions().len(), replicas }
}
