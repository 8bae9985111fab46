//! An API on free ports, and clients that send raw requests.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use minishop_bus::produce::Compression;
use minishop_contracts::orders::v1::order_service_client::OrderServiceClient;
use minishop_core::backoff::Backoff;
use minishop_core::clock::{Clock, ManualClock};
use minishop_platform::clock::{SystemClock, SystemIds};
use minishop_platform::config::{Config, Handling};
use minishop_platform::ctx::{Ctx, Metrics, Status};
use minishop_platform::hints::{Changes, Hints};
use minishop_platform::relay::{RelaySettings, RelayTask};
use minishop_platform::telemetry::LogFormat;
use minishop_store::{OutboxRow, Role, Span, Store};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::world::{Place, World};

/// The base order.
pub const B: &str = r#"{"customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5}]}"#;

pub struct Api {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub metrics: Metrics,
    pub store: Store,
    pub place: Place,
    /// Ends the API as a signal does.
    pub drain: CancellationToken,
    tasks: JoinSet<()>,
}

impl World {
    /// Starts an API on a store of its own.
    pub async fn api(&self) -> Api {
        self.api_with(|_| {}).await
    }

    /// Starts an API on a store of its own, with other settings.
    pub async fn api_with(&self, change: impl FnOnce(&mut Config)) -> Api {
        self.api_on(&self.place().await, change).await
    }

    /// Starts an API whose clock stands still.
    pub async fn api_at_one_moment(&self) -> Api {
        let (place, clock) = (self.place().await, ManualClock::at(SystemClock.now()));
        start_by(Arc::new(clock), place.clone(), place.open().await, config(self.dir.path())).await
    }

    /// Starts an API on an existing store.
    pub async fn api_on(&self, place: &Place, change: impl FnOnce(&mut Config)) -> Api {
        let mut config = config(self.dir.path());
        change(&mut config);
        start(place.clone(), place.open().await, config).await
    }
}

pub async fn start(place: Place, store: Store, config: Config) -> Api {
    start_by(Arc::new(SystemClock), place, store, config).await
}

async fn start_by(clock: Arc<dyn Clock>, place: Place, store: Store, config: Config) -> Api {
    let (status, drain, metrics) = (Status::default(), CancellationToken::new(), Metrics::default());
    // Nothing answers there: events stay in the outbox, where the tests read them.
    let brokers = "127.0.0.1:1".to_owned();
    let settings = RelaySettings {
        owner: "test".to_owned(),
        roles: vec![Role::Api],
        brokers: brokers.clone(),
        compression: Compression::None,
        hints: Hints::default(),
    };
    let (relay, relaying) = RelayTask::new(&store, settings, status.clone(), &metrics).unwrap();
    let ctx = Ctx {
        config: Arc::new(config),
        clock,
        ids: Arc::new(SystemIds),
        store: store.clone(),
        brokers,
        relay,
        changes: Changes::default(),
        metrics: metrics.clone(),
        drain: drain.clone(),
        status: status.clone(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // As at boot, the relay outlives the roles; here it ends with the test.
        let _ = relaying.run(CancellationToken::new()).await;
    });
    for task in minishop_api::start(ctx).await.unwrap() {
        tasks.spawn(async move { task.run.await.unwrap() });
    }
    let bound = |name| status.addresses().into_iter().find(|(n, _)| *n == name).unwrap().1;
    Api { http: bound("http"), grpc: bound("grpc"), metrics, store, place, drain, tasks }
}

pub fn config(dir: &std::path::Path) -> Config {
    let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Config {
        http_addr: free,
        grpc_addr: free,
        admin_addr: free,
        kafka_addr: free,
        data_dir: dir.to_owned(),
        database_url: None,
        redis_url: None,
        kafka_brokers: None,
        topic_prefix: String::new(),
        event_key: minishop_contracts::key::EventKey::Customer,
        kafka_group: "g".to_owned(),
        kafka_session_timeout: Duration::from_secs(45),
        kafka_compression: Compression::None,
        kafka_instance_id: None,
        topic_partitions: 8,
        require_idempotency_key: false,
        reflection: true,
        migrate: true,
        drain_wait: Duration::ZERO,
        outbox_limit_rows: 1_000_000,
        outbox_limit_age: Duration::from_hours(1),
        inbox_retention: Duration::from_hours(14 * 24),
        audit_retention: Duration::from_hours(365 * 24),
        handling: Handling::Confirm,
        retry: Backoff { base: Duration::from_secs(1), factor: 4, cap: Duration::from_hours(1) },
        retry_attempts: 8,
        log_format: LogFormat::Pretty,
        log: None,
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Returns the code, and the wrong fields as `field CODE`.
    pub fn refusal(&self) -> (String, BTreeSet<String>) {
        let body = self.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        let fields = errors.iter().map(|e| format!("{} {}", text(&e["field"]), text(&e["code"])));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(body["status"], self.status);
        assert_eq!(body["type"], format!("urn:minishop:problem:{}", text(&body["code"])));
        assert!(self.header("x-correlation-id").is_some());
        (text(&body["code"]), fields.collect())
    }
}

/// Reads one answer from a stream that stays open.
pub async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut all = Vec::new();
    let head_end = loop {
        if let Some(at) = all.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        let n = stream.read_buf(&mut all).await.unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&all));
    };
    let head = String::from_utf8_lossy(&all[..head_end]).into_owned();
    let mut body = all.split_off(head_end + 4);
    let answer = |head: &str, body| Answer { status: status_of(head), head: head.to_owned(), body };
    let length: usize = answer(&head, Vec::new()).header("content-length").map_or(0, |length| length.parse().unwrap());
    while body.len() < length {
        assert!(stream.read_buf(&mut body).await.unwrap() > 0, "closed within a body");
    }
    assert_eq!(body.len(), length, "nothing follows an answer");
    answer(&head, body)
}

fn status_of(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Encodes a request.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    if !body.is_empty() {
        let _ = write!(head, "content-length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

impl Api {
    /// Sends bytes and reads until the connection is closed; empty if nothing was answered.
    pub async fn bytes(&self, to: SocketAddr, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(to).await.unwrap();
        // A server that refuses early may close before everything is sent.
        let _ = stream.write_all(request).await;
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        all
    }

    /// Sends bytes and reads the answer to the end of the connection.
    pub async fn raw(&self, request: &[u8]) -> Answer {
        self.raw_to(self.http, request).await
    }

    /// Does the same as [`Self::raw`] on another listener.
    pub async fn raw_to(&self, to: SocketAddr, request: &[u8]) -> Answer {
        let all = self.bytes(to, request).await;
        let split =
            all.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(&all)));
        let head = String::from_utf8_lossy(&all[..split]).into_owned();
        Answer { status: status_of(&head), head, body: all[split + 4..].to_vec() }
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let headers = [&[("connection", "close")], headers].concat();
        self.raw(&request(method, path, &headers, body)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    /// Posts an order, with a key if it is not empty.
    pub async fn post(&self, key: &str, body: impl AsRef<[u8]>) -> Answer {
        let mut headers = vec![("content-type", "application/json")];
        if !key.is_empty() {
            headers.push(("x-idempotency-key", key));
        }
        self.send("POST", "/orders", &headers, body.as_ref()).await
    }

    /// Posts the base order and expects 201: nothing before has broken the API.
    pub async fn works(&self) {
        let answer = self.post("", B).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    pub async fn client(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channel().await)
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap()
    }

    /// Returns the events in the outbox.
    pub async fn events(&self) -> Vec<OutboxRow> {
        let spans: Vec<Span> = Role::Api.shards().map(|shard| Span { shard, low: 1, high: i64::MAX }).collect();
        self.store.outbox.read(&spans, 1000).await.unwrap()
    }

    /// Counts the orders.
    pub async fn orders(&self) -> i64 {
        self.place.number("SELECT count(*) FROM orders").await
    }

    /// Returns all metrics as they are scraped.
    pub fn scrape(&self) -> String {
        let mut text = String::new();
        self.metrics.with(|registry| prometheus_client::encoding::text::encode(&mut text, registry)).unwrap();
        text
    }

    /// Waits until the writers have begun `count` statements.
    pub async fn until_statements(&self, count: usize) {
        let line = format!("minishop_api_intake_batch_orders_count {count}\n");
        let begun = async {
            while !self.scrape().contains(&line) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), begun).await.expect("a statement begins");
    }

    /// Waits until all tasks but the relay have ended after the drain.
    pub async fn ended(&mut self) {
        while self.tasks.len() > 1 {
            self.tasks.join_next().await.unwrap().unwrap();
        }
    }
}
