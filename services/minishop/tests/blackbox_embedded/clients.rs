//! Clients that others have written or generated.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::endpoint::SECRET;
use crate::process::{Process, minishop};
use crate::rest::{get, post};
use crate::wait::eventually;
use crate::{ORDER, up};

/// Runs a client to its end; its output if it succeeds.
fn run(command: &mut Command) -> Result<String, String> {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run infra/test, which installs it"));
    let said = |bytes| String::from_utf8(bytes).unwrap();
    if done.status.success() { Ok(said(done.stdout)) } else { Err(said(done.stderr)) }
}

fn grpcurl(server: &Process, options: &[&str], words: &[&str]) -> Result<String, String> {
    run(Command::new("grpcurl").arg("-plaintext").args(options).arg(server.addr("grpc")).args(words))
}

/// Reads an order over REST.
fn order(server: &Process, id: &str) -> Value {
    let answer = get(server.addr("http"), &format!("/orders/{id}"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn grpcurl_learns_the_services_by_reflection_and_creates_an_order() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(up(dir.path()));
    let services = grpcurl(&server, &[], &["list"]).unwrap();
    for service in ["minishop.orders.v1.OrderService", "grpc.health.v1.Health"] {
        assert!(services.lines().any(|line| line == service), "{services}");
    }
    let body = r#"{"customer_id":"c1","items":[{"product_id":"p1","qty":2,"price":10.5}]}"#;
    let options = ["-H", "x-idempotency-key: grpcurl-1", "-H", "x-correlation-id: corr-grpcurl", "-d", body];
    let create = || grpcurl(&server, &options, &["minishop.orders.v1.OrderService/CreateOrder"]).unwrap();
    let reply: Value = serde_json::from_str(&create()).unwrap();
    assert_eq!((&reply["status"], &reply["total"]), (&"created".into(), &21.into()));
    let order = order(&server, reply["orderId"].as_str().unwrap());
    assert_eq!((&order["customerId"], &order["correlationId"]), (&"c1".into(), &"corr-grpcurl".into()));
    assert_eq!(serde_json::from_str::<Value>(&create()).unwrap(), reply, "the same key is the same order");
}

#[test]
fn grpcurl_prints_the_details_of_a_refusal_by_reflection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(up(dir.path()));
    let body = r#"{"customer_id":"c1","items":[{"product_id":"p1","qty":0,"price":10.5}]}"#;
    let said = grpcurl(&server, &["-d", body], &["minishop.orders.v1.OrderService/CreateOrder"]).unwrap_err();
    for part in ["google.rpc.BadRequest", "items[0].qty", "OUT_OF_RANGE", "google.rpc.ErrorInfo", "VALIDATION_FAILED"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("@value"), "a detail was not recognized: {said}");
    // Both versions of reflection know them.
    for version in ["v1", "v1alpha"] {
        let call = format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        for symbol in ["google.rpc.BadRequest", "google.rpc.Status"] {
            let asked = format!(r#"{{"file_containing_symbol":"{symbol}"}}"#);
            let told = grpcurl(&server, &["-d", &asked], &[&call]).unwrap();
            assert!(told.contains("fileDescriptorProto") && !told.contains("errorResponse"), "{version} {symbol}: {told}");
        }
    }
}

#[test]
fn without_reflection_grpcurl_learns_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = minishop(&["up"]);
    command.env("MINISHOP_DATA_DIR", dir.path().join("data")).env("MINISHOP_REFLECTION", "false");
    let server = Process::start(command);
    let refused = grpcurl(&server, &[], &["list"]).unwrap_err();
    assert!(refused.contains("does not support the reflection API"), "{refused}");
}

#[test]
fn a_python_client_generated_from_the_protos_creates_an_order() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(up(dir.path()));
    let create = |key: &str| {
        let mut client = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../clients/python/run"));
        run(client.args(["create_order.py", "--addr", server.addr("grpc"), "--key", key])).unwrap().trim().to_owned()
    };
    let id = create("python-1");
    let order = order(&server, &id);
    assert_eq!((&order["orderId"], &order["customerId"], &order["total"]), (&id.as_str().into(), &"c1".into(), &21.into()));
    assert_eq!(create("python-1"), id, "the same key is the same order");
    assert_ne!(create("python-2"), id);
}

/// A program in another language that runs until the test ends.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let spawned = command.stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{error}; run infra/test, which installs it"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Starts a receiver of webhooks on a free port; returns it with its address.
    fn receiver(mut command: Command) -> (Self, String) {
        command.env("MINISHOP_WEBHOOK_SECRET", SECRET).env("PORT", "0");
        let mut receiver = Self::start(command);
        let ready = receiver.lines.next().unwrap().unwrap();
        let url = ready.strip_prefix("ready ").unwrap_or_else(|| panic!("{ready}")).to_owned();
        (receiver, url)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets a receiver fulfil an order, and checks that it turns away what is signed with another secret.
fn fulfils(receiver: Command) {
    let (mut receiver, url) = Running::receiver(receiver);
    let dir = tempfile::tempdir().unwrap();
    let start = |secret: &str, at: &str| {
        let mut command = up(&dir.path().join(at));
        command.env("MINISHOP_HANDLER", "webhook").env("MINISHOP_WEBHOOK_URL", &url).env("MINISHOP_WEBHOOK_SECRET", secret);
        Process::start(command)
    };
    let server = start(SECRET, "good");
    let created: Value = serde_json::from_str(&post(server.addr("http"), "/orders", &[], ORDER).body).unwrap();
    let id = created["orderId"].as_str().unwrap();
    eventually(Duration::from_secs(20), "the order is processed", || (order(&server, id)["status"] == "processed").then_some(()));
    let said: Value = serde_json::from_str(&receiver.lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(said["orderId"], id, "the receiver has verified and fulfilled it");
    let stranger = start("whsec_/////////////////////////////////////////w==", "bad");
    let created: Value = serde_json::from_str(&post(stranger.addr("http"), "/orders", &[], ORDER).body).unwrap();
    let id = created["orderId"].as_str().unwrap();
    eventually(Duration::from_secs(20), "a call is turned away", || {
        let metrics = get(stranger.addr("admin"), "/metrics").body;
        metrics.contains(r#"minishop_webhook_call_seconds_count{outcome="failed"}"#).then_some(())
    });
    assert_eq!(order(&stranger, id)["status"], "created");
}

#[test]
fn a_plain_kafkajs_consumer_reads_the_events_of_many_orders() {
    const ORDERS: usize = 50;
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(up(dir.path()));
    // At once: batches of one record are not worth compressing, and no client would notice.
    std::thread::scope(|scope| {
        for _ in 0..ORDERS {
            scope.spawn(|| assert_eq!(post(server.addr("http"), "/orders", &[], ORDER).status, 201));
        }
    });
    let mut consumer = Command::new("node");
    consumer.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../clients/node/read_events.js")).arg("orders.created");
    consumer.env("KAFKA_BROKERS", server.addr("kafka"));
    let mut consumer = Running::start(consumer);
    for n in 0..ORDERS {
        let line = consumer.lines.next().unwrap_or_else(|| panic!("the consumer ended after {n} events")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["type"], "orders.created.v1");
    }
}

#[test]
fn a_python_receiver_verifies_webhooks_with_the_public_library() {
    let mut receiver = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../clients/python/run"));
    receiver.arg("webhook_receiver.py");
    fulfils(receiver);
}

#[test]
fn a_node_receiver_verifies_webhooks_with_the_public_library() {
    let mut receiver = Command::new("node");
    receiver.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../clients/node/webhook_receiver.js"));
    fulfils(receiver);
}
