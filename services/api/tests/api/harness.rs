//! A running API, and clients that send raw requests.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use minishop_contracts::orders::v1::order_service_client::OrderServiceClient;
use minishop_platform::ctx::Metrics;
use minishop_store::{OutboxRow, Store};
use minishop_testkit::database::{Database, Held};
use minishop_testkit::metrics::{sample, scrape};
use minishop_testkit::rebuilt::outbox;
use minishop_testkit::wait::becomes;
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
    pub metrics: Metrics,
    pub store: Store,
    pub database: Database,
    /// Ends the API as a signal does.
    pub drain: CancellationToken,
    pub tasks: JoinSet<()>,
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
        outbox(&self.store).await
    }

    /// Counts the orders.
    pub async fn orders(&self) -> i64 {
        self.database.count("orders").await
    }

    /// Blocks every commit of an order under `key` until the transaction is released.
    pub async fn hold(&self, key: &str) -> Held {
        let insert = format!(
            "BEGIN; INSERT INTO orders (order_id, client_id, idempotency_key, fingerprint, customer_id, status, version, \
             total_minor, items, correlation_id, created_event_id, created_at) VALUES (gen_random_uuid(), 'anonymous', \
             '{key}', decode(repeat('00', 32), 'hex'), 'c', 'created', 1, 0, '[]', 'c', gen_random_uuid(), now())"
        );
        self.database.hold(if self.database.is_distributed() { &insert } else { "BEGIN IMMEDIATE" }).await
    }

    /// Returns all metrics as they are scraped.
    pub fn scrape(&self) -> String {
        scrape(&self.metrics)
    }

    /// Waits until a metric has a value.
    pub async fn until_metric(&self, name: &str, value: usize) {
        becomes(name, async || sample(&self.metrics, name), Some(value as u64)).await;
    }

    /// Waits until the writers have begun `count` statements.
    pub async fn until_statements(&self, count: usize) {
        self.until_metric("api_intake_batch_orders_count", count).await;
    }

    /// Waits until all tasks but the relay have ended after the drain.
    pub async fn ended(&mut self) {
        while self.tasks.len() > 1 {
            self.tasks.join_next().await.unwrap().unwrap();
        }
    }
}
