//! One API on free ports, and clients that send what they are told.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use minishop_contracts::orders::v1::order_service_client::OrderServiceClient;
use minishop_platform::clock::{SystemClock, SystemIds};
use minishop_platform::config::Config;
use minishop_platform::ctx::{Ctx, Metrics, Status};
use minishop_platform::relay::{RelayTask, Settings};
use minishop_platform::store::{OutboxRow, Role, Store, sqlite};
use minishop_platform::telemetry::LogFormat;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// The base order.
pub const B: &str = r#"{"customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5}]}"#;

pub struct Api {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub store: Store,
    _tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

pub async fn api() -> Api {
    api_with(|_| {}).await
}

pub async fn api_with(change: impl FnOnce(&mut Config)) -> Api {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let store = sqlite::open(&dir.path().join("orders.db"), clock.clone(), true).await.unwrap();
    let mut config = config(dir.path());
    change(&mut config);
    let (status, drain) = (Status::default(), CancellationToken::new());
    // Nothing answers there: events stay in the outbox, where the tests look at them.
    let brokers = "127.0.0.1:1".to_owned();
    let settings = Settings { owner: "test".to_owned(), roles: vec![Role::Api], brokers: brokers.clone() };
    let (relay, relaying) = RelayTask::new(store.outbox.clone(), settings, status.clone()).unwrap();
    let ctx = Ctx {
        config: Arc::new(config),
        clock,
        ids: Arc::new(SystemIds),
        store: store.clone(),
        brokers,
        relay,
        metrics: Metrics::default(),
        drain: drain.clone(),
        status: status.clone(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = relaying.run(drain).await;
    });
    for task in minishop_api::start(ctx).await.unwrap() {
        tasks.spawn(async move { task.run.await.unwrap() });
    }
    let bound = |name| status.addresses().into_iter().find(|(n, _)| *n == name).unwrap().1;
    Api { http: bound("http"), grpc: bound("grpc"), store, _tasks: tasks, _dir: dir }
}

fn config(dir: &std::path::Path) -> Config {
    let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Config {
        http_addr: free,
        grpc_addr: free,
        admin_addr: free,
        kafka_addr: free,
        data_dir: dir.to_owned(),
        database_url: None,
        kafka_brokers: None,
        topic_prefix: String::new(),
        event_key: minishop_contracts::key::EventKey::Customer,
        kafka_group: "g".to_owned(),
        kafka_session_timeout: Duration::from_secs(45),
        topic_partitions: 8,
        require_idempotency_key: false,
        reflection: true,
        migrate: true,
        drain_wait: Duration::ZERO,
        outbox_limit_rows: 1_000_000,
        outbox_limit_age: Duration::from_hours(1),
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

    /// The code, and the wrong fields as `field CODE`.
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

impl Api {
    /// Sends bytes and reads the answer to the end of the connection.
    pub async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        let split =
            all.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(&all)));
        let head = String::from_utf8_lossy(&all[..split]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: all[split + 4..].to_vec() }
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        if !body.is_empty() {
            let _ = write!(head, "content-length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        self.raw(&[head.as_bytes(), body].concat()).await
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

    pub async fn client(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::connect(format!("http://{}", self.grpc)).await.unwrap()
    }

    /// The events that wait.
    pub async fn events(&self) -> Vec<OutboxRow> {
        self.store.outbox.pending(&(0..16).collect::<Vec<_>>(), 1000).await.unwrap()
    }
}
