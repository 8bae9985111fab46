//! Topics: which are there, and making those that are not.

use std::time::Duration;

use anyhow::Context;
use minishop_contracts::topics;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A topic as the brokers describe it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Topic {
    /// The name, prefix included.
    pub name: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// How many brokers keep each record, at the partition with the fewest.
    pub replicas: usize,
}

/// What becomes of a topic's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long they are kept; `None` is for ever.
    pub retention: Option<Duration>,
    /// Whether all but the newest of each key may be thrown away.
    pub compacted: bool,
    /// How many bytes a batch may have.
    pub largest: u64,
}

/// Whether a topic was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Made {
    /// It is new.
    Created,
    /// It was there; its settings were left alone.
    Existed,
}

/// Lists all topics. The error means that no broker answered within `patience`.
pub async fn list(brokers: &str, patience: Duration) -> anyhow::Result<Vec<Topic>> {
    let client: BaseConsumer = config(brokers).create().context("cannot make a Kafka client")?;
    let ask = move || client.fetch_metadata(None, patience).map(|metadata| metadata.topics().iter().map(describe).collect());
    tokio::task::spawn_blocking(ask).await?.with_context(|| format!("no broker answers at {brokers}"))
}

/// Tells whether a topic is there. The error means that no broker answered within `patience`.
pub async fn exists(brokers: &str, topic: &str, patience: Duration) -> anyhow::Result<bool> {
    let client: BaseConsumer = config(brokers).create().context("cannot make a Kafka client")?;
    let name = topic.to_owned();
    let ask = move || {
        let metadata = client.fetch_metadata(Some(&name), patience)?;
        Ok::<_, KafkaError>(metadata.topics().iter().any(|topic| topic.name() == name && topic.error().is_none()))
    };
    tokio::task::spawn_blocking(ask).await?.with_context(|| format!("no broker answers at {brokers}"))
}

/// Names those of our topics that are not there.
pub async fn missing(brokers: &str, prefix: &str, patience: Duration) -> anyhow::Result<Vec<String>> {
    let there = list(brokers, patience).await?;
    let wanted = topics::ALL.iter().map(|topic| topics::prefixed(prefix, topic));
    Ok(wanted.filter(|name| !there.iter().any(|topic| topic.name == *name)).collect())
}

/// Makes our topics with the brokers' default replication; one that exists is left as it is.
pub async fn create(brokers: &str, prefix: &str, partitions: i32, patience: Duration) -> anyhow::Result<Vec<(String, Made)>> {
    let client: AdminClient<DefaultClientContext> = config(brokers).create().context("cannot make a Kafka client")?;
    let names: Vec<String> = topics::ALL.iter().map(|topic| topics::prefixed(prefix, topic)).collect();
    let dead_letters = topics::prefixed(prefix, topics::CREATED_DEAD_LETTERS);
    let new = names.iter().map(|name| {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        // A dead letter carries a whole record in its value, and more in its headers.
        if *name == dead_letters { topic.set("max.message.bytes", "2000000") } else { topic }
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
    Ok(made)
}

/// Reads the settings of topics, in their order.
pub async fn settings(brokers: &str, names: &[&str], patience: Duration) -> anyhow::Result<Vec<Settings>> {
    if names.is_empty() {
        // To ask about nothing is refused.
        return Ok(Vec::new());
    }
    let client: AdminClient<DefaultClientContext> = config(brokers).create().context("cannot make a Kafka client")?;
    let options = AdminOptions::new().request_timeout(Some(patience));
    let wanted: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let described = client.describe_configs(&wanted, &options).await;
    let described = described.with_context(|| format!("no broker answers at {brokers}"))?;
    anyhow::ensure!(described.len() == names.len(), "the brokers described {} of {} topics", described.len(), names.len());
    let read = |(name, resource): (&&str, Result<ConfigResource, RDKafkaErrorCode>)| {
        resource.map_err(anyhow::Error::new).and_then(|resource| told(&resource)).with_context(|| (*name).to_owned())
    };
    names.iter().zip(described).map(read).collect()
}

fn told(resource: &ConfigResource) -> anyhow::Result<Settings> {
    let value = |name: &str| {
        let value = resource.get(name).and_then(|entry| entry.value.as_deref());
        value.with_context(|| format!("the brokers do not tell {name}"))
    };
    let millis: i64 = value("retention.ms")?.parse()?;
    Ok(Settings {
        retention: u64::try_from(millis).ok().map(Duration::from_millis),
        compacted: value("cleanup.policy")?.split(',').any(|policy| policy.trim() == "compact"),
        largest: value("max.message.bytes")?.parse()?,
    })
}

/// Tells librdkafka's version.
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
