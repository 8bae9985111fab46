//! Endpoints that answer well, badly, slowly and not at all.

use std::sync::Arc;

use bytes::Bytes;
use minishop_core::clock::{ManualClock, from_millis};
use minishop_core::ids::{CorrelationId, EventId, OrderId};
use minishop_platform::clock::{SystemClock, SystemIds};
use minishop_platform::outbound::Targets;
use minishop_platform::telemetry::propagation::TraceContext;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const BODY: &str = r#"{"eventId":"x","data":{"customerId":"žluťoučký"}}"#;

/// How an endpoint handles one request.
#[derive(Clone)]
enum Script {
    /// Writes these bytes and closes.
    Bytes(String),
    /// Writes these bytes, and then nothing more.
    Silence(&'static str),
}

fn answer(status: &str, more: &str) -> Script {
    Script::Bytes(format!("HTTP/1.1 {status}\r\n{more}content-length: 0\r\nconnection: close\r\n\r\n"))
}

/// Serves one request; returns its head and body.
async fn serve(listener: &TcpListener, script: Script) -> (String, String, Option<TcpStream>) {
    let (stream, _) = listener.accept().await.expect("a connection");
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).await.expect("a line") > 0, "a whole head");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    reader.read_exact(&mut body).await.expect("the body");
    let mut stream = reader.into_inner();
    let open = match script {
        Script::Bytes(text) => {
            // A client that has read enough may close the connection early.
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
            None
        }
        Script::Silence(text) => {
            stream.write_all(text.as_bytes()).await.expect("written");
            Some(stream)
        }
    };
    (head, String::from_utf8(body).expect("UTF-8"), open)
}

fn delivery() -> Delivery {
    Delivery {
        event_id: EventId::from_text("event-1"),
        order_id: OrderId(EventId::from_text("order-1").0),
        correlation_id: CorrelationId::parse("corr-1").expect("a correlation id"),
        idempotency_key: minishop_core::idempotency::IdempotencyKey::parse("key-1").expect("a key"),
        record_key: Bytes::from_static(b"c1"),
        envelope: Bytes::from_static(BODY.as_bytes()),
        trace: TraceContext::new(&SystemIds),
    }
}

fn webhook(url: &str, timeout: Duration, clock: Arc<dyn Clock>) -> Webhook {
    let url = url.parse().expect("an address");
    let settings = Settings { url, key: vec![7; 32].into(), timeout, concurrency: 4, targets: Targets::Any };
    Webhook::new(&settings, clock, &Metrics::default())
}

async fn handled_by(script: Script, timeout: Duration) -> Handled {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/orders", listener.local_addr().expect("bound"));
    let clock = ManualClock::at(from_millis(1_700_000_000_000));
    let (webhook, delivery) = (webhook(&url, timeout, Arc::new(clock)), delivery());
    tokio::join!(webhook.handle(&delivery), serve(&listener, script)).0
}

async fn handled(script: Script) -> Handled {
    handled_by(script, Duration::from_secs(10)).await
}

#[tokio::test]
async fn a_call_can_be_verified_with_the_public_library() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/orders?shop=1", listener.local_addr().expect("bound"));
    let (webhook, delivery) = (webhook(&url, Duration::from_secs(10), Arc::new(SystemClock)), delivery());
    let (handled, (head, body, _)) = tokio::join!(webhook.handle(&delivery), serve(&listener, answer("204 No Content", "")));
    assert_eq!(handled, Handled::Done);
    assert!(head.starts_with("POST /orders?shop=1 HTTP/1.1\r\n"), "{head}");
    let mut headers = HeaderMap::new();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        headers.insert(HeaderName::try_from(name).expect("a name"), HeaderValue::from_str(value).expect("a value"));
    }
    let verifier = standardwebhooks::Webhook::from_bytes(vec![7; 32]).expect("a key");
    verifier.verify(body.as_bytes(), &headers).expect("a good signature of this moment");
    assert_eq!(body, BODY);
    let id = delivery.event_id.to_string();
    for (name, value) in [
        ("webhook-id", id.as_str()),
        ("idempotency-key", &id),
        ("x-correlation-id", "corr-1"),
        ("content-type", "application/json"),
        ("traceparent", delivery.trace.traceparent()),
    ] {
        assert_eq!(headers.get(name).and_then(|v| v.to_str().ok()), Some(value), "{name}");
    }
}

#[tokio::test]
async fn success_is_any_2xx_whatever_its_body() {
    let large = format!("HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n{}", "x".repeat(10_000_000));
    for script in [answer("200 OK", ""), answer("299 Fine", ""), Script::Bytes(large)] {
        assert_eq!(handled(script).await, Handled::Done);
    }
}

#[tokio::test]
async fn conflict_gone_and_unprocessable_refuse_for_good() {
    for status in ["409 Conflict", "410 Gone", "422 Unprocessable Content"] {
        let refused = handled(answer(status, "")).await;
        assert_eq!(refused, Handled::Refused { message: format!("the endpoint answered {}", &status[..3]) });
    }
}

#[tokio::test]
async fn every_other_answer_is_tried_again_and_no_redirect_is_followed() {
    let statuses = ["408 X", "429 X", "500 X", "503 X", "400 X", "401 X", "404 X", "418 X", "301 X", "307 X"];
    for status in statuses {
        let failed = handled(answer(status, "location: http://127.0.0.1:1/\r\n")).await;
        let message = format!("the endpoint answered {}", &status[..3]);
        assert_eq!(failed, Handled::Failed { message, retry_after: None }, "{status}");
    }
    for script in
        [Script::Bytes("SSH-2.0-OpenSSH\r\n".into()), Script::Bytes("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx".into())]
    {
        assert!(matches!(handled(script).await, Handled::Failed { retry_after: None, .. }));
    }
    for url in ["http://host.invalid/", "https://127.0.0.1:1/", "http://127.0.0.1:1/"] {
        let handled = webhook(url, Duration::from_secs(10), Arc::new(SystemClock)).handle(&delivery()).await;
        assert!(matches!(handled, Handled::Failed { retry_after: None, .. }), "{url}: {handled:?}");
    }
}

#[tokio::test]
async fn an_endpoints_wish_is_followed_up_to_five_minutes() {
    let cases = [
        ("3", Some(3)),
        ("-1", None),
        ("soon", None),
        ("86400", Some(300)),
        ("Tue, 14 Nov 2023 22:14:20 GMT", Some(60)),
        ("Tue, 14 Nov 2023 22:00:00 GMT", None),
    ];
    for (wish, expected) in cases {
        for status in ["429 Too Many Requests", "503 Service Unavailable"] {
            let Handled::Failed { retry_after, .. } = handled(answer(status, &format!("retry-after: {wish}\r\n"))).await else {
                panic!("{status} is a failure");
            };
            assert_eq!(retry_after, expected.map(Duration::from_secs), "{wish}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_is_silent_or_drips_is_cut_off() {
    for text in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx"] {
        let failed = handled_by(Script::Silence(text), Duration::from_millis(200)).await;
        let Handled::Failed { message, .. } = failed else { panic!("{text:?} is no success: {failed:?}") };
        assert!(message.contains("no complete response within 200ms"), "{message}");
    }
}

/// Lets calls fail until the breaker pauses them.
async fn go_down(webhook: &Webhook) {
    for n in 0..12 {
        assert!(matches!(webhook.handle(&of_customer(n)).await, Handled::Failed { .. }));
    }
}

#[tokio::test]
async fn while_the_endpoint_is_down_calls_pause_and_a_few_find_out() {
    let webhook = webhook("http://127.0.0.1:1/", Duration::from_secs(10), Arc::new(SystemClock));
    let endpoint = webhook.endpoint().expect("it calls one");
    assert_eq!((&*endpoint.name, endpoint.outage.borrow().clone()), ("http://127.0.0.1:1", None));
    go_down(&webhook).await;
    assert_eq!(webhook.handle(&delivery()).await, Handled::Paused);
    let pause = webhook.paused().expect("a pause");
    assert!(pause <= Duration::from_secs(1), "{pause:?}");
    let outage = endpoint.outage.borrow().clone().expect("an outage");
    assert!(
        outage.why.starts_with("12 of the latest 12 calls failed, of 12 keys; the last: the endpoint could not be"),
        "{outage:?}"
    );
    assert!(outage.next_probe_at > outage.since && outage.next_probe_at <= outage.since + TimeDelta::seconds(1), "{outage:?}");
    *breaker::lock(&webhook.breaker) = breaker::open(Instant::now());
    assert_eq!((webhook.paused(), webhook.concurrency()), (None, 4), "after it a few may find out");
    for n in 0..3 {
        assert_eq!(webhook.handle(&of_customer(n)).await, Handled::Paused, "none of them uses up an attempt");
    }
    assert!(webhook.paused().is_some(), "they failed as well");
}

#[tokio::test]
async fn a_call_that_was_to_find_out_and_is_dropped_leaves_that_to_the_next() {
    // Accepts connections and answers nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let (webhook, delivery) = (webhook(&url, Duration::from_millis(200), Arc::new(SystemClock)), delivery());
    *breaker::lock(&webhook.breaker) = breaker::open(Instant::now());
    let mut probes: Vec<_> = (0..5).map(|_| Box::pin(webhook.handle(&delivery))).collect();
    for probe in &mut probes {
        assert!(futures::poll!(probe).is_pending());
    }
    assert_eq!(webhook.handle(&delivery).await, Handled::Paused, "the others wait for them");
    drop(probes);
    assert_eq!(webhook.paused(), None, "events may be claimed");
    assert_eq!(webhook.handle(&delivery).await, Handled::Paused, "the next one finds out, and uses up no attempt");
    assert_eq!(
        breaker::lock(&webhook.breaker).outage_now().map(|outage| outage.why).as_deref(),
        Some("the endpoint could not be called: no complete response within 200ms")
    );
}

/// Answers the requests on one connection in order, and closes it after the last; returns their ids.
async fn serve_on_one(listener: &TcpListener, answers: &[&str]) -> Vec<String> {
    let (stream, _) = listener.accept().await.expect("a connection");
    let (mut reader, mut ids) = (BufReader::new(stream), Vec::new());
    for answer in answers {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).await.expect("a line") > 0, "a whole head");
        }
        reader.read_exact(&mut vec![0; BODY.len()]).await.expect("the body");
        ids.push(head.lines().find_map(|line| line.strip_prefix("webhook-id: ")).expect("an id").to_owned());
        reader.get_mut().write_all(answer.as_bytes()).await.expect("written");
    }
    ids
}

const KEPT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

fn of_customer(n: usize) -> Delivery {
    Delivery { record_key: Bytes::from(format!("c{n}")), event_id: EventId::from_text(&format!("event-{n}")), ..delivery() }
}

#[tokio::test]
async fn a_kept_connection_that_is_closed_under_a_request_is_no_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let webhook = webhook(&url, Duration::from_secs(10), Arc::new(SystemClock));
    // Each connection serves one request, is kept open, and is closed when the next one arrives.
    let endpoint = async {
        let mut seen = vec![serve_on_one(&listener, &[KEPT, ""]).await];
        for _ in 1..24 {
            seen.push(serve_on_one(&listener, &[KEPT]).await);
            seen.push(serve_on_one(&listener, &[KEPT, ""]).await);
        }
        seen
    };
    let calls = async {
        for n in 0..24 {
            assert_eq!(webhook.handle(&of_customer(n)).await, Handled::Done, "order {n}");
        }
    };
    tokio::select! {
        () = calls => {}
        _ = endpoint => panic!("more calls than there are orders"),
    }
    assert_eq!(webhook.paused(), None);
}

#[tokio::test]
async fn a_request_that_was_answered_in_part_or_on_a_new_connection_is_not_sent_again() {
    for (first, answers) in [(None, vec![""]), (Some(Handled::Done), vec![KEPT, "HTTP/1.1 2"])] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let webhook = webhook(&url, Duration::from_secs(10), Arc::new(SystemClock));
        let calls = async {
            if let Some(expected) = first {
                assert_eq!(webhook.handle(&delivery()).await, expected);
            }
            webhook.handle(&delivery()).await
        };
        let (handled, _) = tokio::join!(calls, serve_on_one(&listener, &answers));
        assert!(matches!(handled, Handled::Failed { .. }), "{handled:?}");
        assert!(futures::poll!(Box::pin(listener.accept())).is_pending(), "it was not called again");
    }
}
