//! What no client should send: bytes that are not a request, and impossible requests.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, DeleteTopicsRequest, HeartbeatRequest, MetadataRequest,
};
use kafka_protocol::protocol::StrBytes;
use minishop_broker::{Limits, TopicSettings};
use minishop_testkit::wait::{PATIENCE, eventually};
use tempfile::tempdir;
use tracing::{Event, Level, Metadata, Subscriber, span};

use super::batch::plain;
use super::fixture::{Log, settings};
use super::raw::{Raw, fetch, fetched, frame, topic_name};

/// Keeps the warnings and errors of the thread that the test runs on.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            let _ = write!(text, "{field}={value:?} ");
        });
        self.0.lock().unwrap().push(text);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn bytes_that_are_no_request_end_the_connection() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let good = frame(1, 3, &ApiVersionsRequest::default());
    let header = |key: i16, version: i16| {
        [&12_i32.to_be_bytes()[..], &key.to_be_bytes(), &version.to_be_bytes(), &[0, 0, 0, 1, 0xff, 0xff, 0, 0]].concat()
    };
    // A metadata request (version 1) whose array claims two billion topics.
    let lying = [&header(3, 1)[..12], &[0xff, 0xff], &i32::MAX.to_be_bytes()].concat();
    let lying = [&14_i32.to_be_bytes()[..], &lying[4..]].concat();
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("length −1", (-1_i32).to_be_bytes().to_vec(), ""),
        ("length 0", 0_i32.to_be_bytes().to_vec(), ""),
        ("length 7", 7_i32.to_be_bytes().to_vec(), ""),
        ("length 16777217", 16_777_217_i32.to_be_bytes().to_vec(), ""),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "HTTP"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "HTTP"),
        ("TLS hello", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], "TLS"),
        ("unknown API", header(999, 0), ""),
        ("an API that is not spoken", header(22 + 2, 0), ""),
        ("unknown version of a known API", header(3, 99), ""),
        ("version −1", header(3, -1), ""),
        ("a count that is a lie", lying, ""),
        ("a frame that does not parse", [&good[..4], &vec![0xff; good.len() - 4]].concat(), ""),
        (
            "bytes behind the request",
            {
                let size = i32::try_from(good.len() - 4 + 1).unwrap();
                [&size.to_be_bytes()[..], &good[4..], &[0]].concat()
            },
            "",
        ),
    ];
    for (what, bytes, logged) in rows {
        let warnings = Warnings::default();
        let guard = tracing::subscriber::set_default(warnings.clone());
        let mut raw = log.connect().await;
        raw.send_bytes(&bytes).await;
        assert!(raw.closes_within(Duration::from_secs(2)).await, "{what}: still open");
        drop(guard);
        let lines = warnings.0.lock().unwrap().clone();
        assert_eq!(lines.len(), usize::from(!logged.is_empty()), "{what}: {lines:?}");
        assert!(lines.iter().all(|line| line.contains(logged)), "{what}: {lines:?}");
        log.connect().await.still_works().await;
    }
    log.stop().await;
}

/// A count of two billion would allocate three hundred gigabytes and end the process.
#[tokio::test]
async fn random_bytes_behind_a_good_header_never_end_the_log() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..2_000 {
        let key = i16::try_from(random() % 62).unwrap();
        let version = i16::try_from(random() % 14).unwrap();
        let length = usize::try_from(random() % 60).unwrap();
        let mut body: Vec<u8> = Vec::new();
        body.extend(key.to_be_bytes());
        body.extend(version.to_be_bytes());
        body.extend([0, 0, 0, 1, 0xff, 0xff]);
        // Mixes large and small bytes, so that lengths are often huge and often nearly right.
        body.extend((0..length).map(|_| [0xff, 0x7f, 0, 1, 2][usize::try_from(random() % 5).unwrap()]));
        let mut raw = log.connect().await;
        raw.send_bytes(&i32::try_from(body.len()).unwrap().to_be_bytes()).await;
        raw.send_bytes(&body).await;
        if round % 50 == 0 {
            log.connect().await.still_works().await;
        }
    }
    log.connect().await.still_works().await;
    log.stop().await;
}

#[test]
fn limits_are_the_documented_ones() {
    let limits = Limits::default();
    assert_eq!(limits.frame_bytes, 16_777_216);
    assert_eq!(limits.fetch_bytes, 8_388_608);
    assert_eq!(limits.fetch_wait, Duration::from_secs(30));
    assert_eq!(limits.first_byte, Duration::from_secs(10));
    assert_eq!(limits.frame, Duration::from_secs(30));
    assert_eq!(limits.idle, Duration::from_mins(10));
    assert_eq!((limits.connections, limits.partitions, limits.members), (256, 64, 50));
}

#[tokio::test]
async fn slow_and_silent_connections_are_closed_in_time() {
    let dir = tempdir().unwrap();
    let mut settings = settings(&dir);
    settings.limits.first_byte = Duration::from_millis(300);
    settings.limits.frame = Duration::from_millis(600);
    settings.limits.idle = Duration::from_millis(900);
    let log = Log::start(settings).await;
    let good = frame(1, 3, &ApiVersionsRequest::default());

    let mut silent = log.connect().await;
    assert!(silent.stays_silent(Duration::from_millis(100)).await);
    assert!(silent.closes_within(Duration::from_secs(1)).await, "a silent connection stayed");

    let mut half = log.connect().await;
    half.send_bytes(&good[..good.len() / 2]).await;
    assert!(half.stays_silent(Duration::from_millis(400)).await, "closed before its time");
    assert!(half.closes_within(Duration::from_millis(1500)).await, "half a frame stayed");

    let mut idle = log.connect().await;
    idle.still_works().await;
    assert!(idle.stays_silent(Duration::from_millis(600)).await, "closed before its time");
    assert!(idle.closes_within(Duration::from_millis(1500)).await, "an idle connection stayed");
    log.stop().await;
}

#[tokio::test]
async fn the_257th_connection_is_closed_at_once() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut open = Vec::new();
    for _ in 0..256 {
        let mut raw = log.connect().await;
        raw.still_works().await;
        open.push(raw);
    }
    let mut surplus = log.connect().await;
    assert!(surplus.closes_within(Duration::from_secs(1)).await);
    open[0].still_works().await;
    open.pop();
    eventually(PATIENCE, "a place is free again", async || log.connect().await.is_served().await).await;
    log.stop().await;
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    // A request in the form of version 4 with another number: what a newer client sends first.
    let mut newer = frame(1, 4, &ApiVersionsRequest::default()).to_vec();
    newer[6..8].copy_from_slice(&77_i16.to_be_bytes());
    raw.send_bytes(&newer).await;
    let answer: ApiVersionsResponse = raw.receive(1, 0).await;
    assert_eq!(answer.error_code, 35);
    assert!(answer.api_keys.iter().any(|api| api.api_key == 18 && api.max_version >= 3));
    log.stop().await;
}

#[tokio::test]
async fn a_hundred_fetches_sent_ahead_are_answered_in_order() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    assert_eq!(raw.produce("t", 0, plain(&["a"]).bytes()).await.error_code, 0);
    let mut ahead = Raw::connect(log.addr).await;
    for _ in 0..100 {
        ahead.send(12, &fetch("t", &[(0, 0)])).await;
    }
    for correlation in 1..=100 {
        let data = fetched(ahead.receive(correlation, 12).await).remove(0);
        assert_eq!(data.high_watermark, 1);
    }
    ahead.still_works().await;
    log.stop().await;
}

#[tokio::test]
async fn unlawful_topics_are_refused_with_kafkas_codes() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    let config = |name: &str, value: &str| {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        vec![CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))]
    };
    let lengthy = "x".repeat(250);
    let rows = [
        ("", 1, 1, vec![], 17),
        ("..", 1, 1, vec![], 17),
        (".", 1, 1, vec![], 17),
        ("a b", 1, 1, vec![], 17),
        ("ä", 1, 1, vec![], 17),
        (&lengthy, 1, 1, vec![], 17),
        ("t", 1, 1, vec![], 36),
        ("new", 0, 1, vec![], 37),
        ("new", 65, 1, vec![], 37),
        ("new", i32::MAX, 1, vec![], 37),
        ("new", -2, 1, vec![], 37),
        ("new", 1, 2, vec![], 38),
        ("new", 1, 0, vec![], 38),
        ("new", 1, 1, config("no.such.setting", "1"), 40),
        ("new", 1, 1, config("retention.ms", "soon"), 40),
        ("new", 1, 1, config("cleanup.policy", "compact"), 40),
        ("new", 64, 1, config("retention.ms", "86400000"), 0),
        ("default", -1, -1, vec![], 0),
    ];
    for (name, count, replicas, configs, expected) in rows {
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(count)
            .with_replication_factor(replicas)
            .with_configs(configs);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000);
        let result = raw.call(7, &request).await.topics.remove(0);
        assert_eq!(result.error_code, expected, "{name} with {count} partitions: {:?}", result.error_message);
    }
    let topics = raw.topics().await;
    let known: Vec<_> = topics.iter().map(|topic| (topic.name.as_deref().unwrap().as_str(), topic.partitions.len())).collect();
    assert_eq!(known, [("default", 8), ("new", 64), ("t", 3)], "a refused topic was made, or one with another count");
    raw.still_works().await;
    log.stop().await;
}

#[tokio::test]
async fn a_topic_made_again_starts_anew() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    raw.produce("t", 0, plain(&["a", "b"]).bytes()).await;
    super::bad_groups::commit_alone(&mut raw, "g", 0, 2).await;
    let first = raw.topic_id().await;
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t")]).with_timeout_ms(1000);
    assert_eq!(raw.call(5, &delete).await.responses[0].error_code, 0);
    assert_eq!(raw.call(5, &delete).await.responses[0].error_code, 3, "deleted twice");
    assert_eq!(raw.fetch("t", 0, 0).await.error_code, 3);
    log.handle.ensure_topic("t", 3, TopicSettings::default()).await.unwrap();
    assert_ne!(raw.topic_id().await, first);
    assert_eq!(super::bad_groups::committed(&mut raw, "g", 0).await, -1, "an old offset came back");
    let answer = raw.produce("t", 0, plain(&["c"]).bytes()).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    log.stop().await;
}

#[tokio::test]
async fn an_unknown_topic_is_not_made_by_asking_for_it() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    let ask = kafka_protocol::messages::metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name("typo")));
    let request = MetadataRequest::default().with_topics(Some(vec![ask])).with_allow_auto_topic_creation(true);
    for version in [1, 4, 8, 9, 10, 12, 13] {
        let mut request = request.clone();
        request.allow_auto_topic_creation |= version < 4;
        assert_eq!(raw.call(version, &request).await.topics[0].error_code, 3, "version {version}");
    }
    assert_eq!(raw.topics().await.len(), 1);
    raw.call(4, &HeartbeatRequest::default()).await;
    raw.still_works().await;
    log.stop().await;
}
