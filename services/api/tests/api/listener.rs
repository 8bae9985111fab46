//! The REST listener: what is checked before a request's content, and in which order.

use std::collections::BTreeSet;

use minishop_testkit::database::Engine;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::harness::{B, read_answer, request};
use crate::world::{World, on};

const JSON: (&str, &str) = ("content-type", "application/json");
const ID: &str = "/orders/0190163d-8694-739b-aea5-966c26f8ad91";

/// Runs a test on SQLite alone: the kind of store does not matter here.
async fn on_sqlite(test: impl AsyncFnOnce(&World)) {
    on(Engine::Sqlite, test).await;
}

pub async fn paths_and_methods_are_checked_before_the_host(world: &World) {
    let api = world.api().await;
    let ask = async |method: &str, path: &str, host: &str| {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\norigin: https://evil.example\r\nconnection: close\r\n\r\n");
        api.raw(request.as_bytes()).await
    };
    for host in ["localhost", "evil.example"] {
        for path in ["/nope", "//orders", "/orders/", "/ORDERS", "/metrics"] {
            let answer = ask("GET", path, host).await;
            assert_eq!((answer.status, answer.refusal().0.as_str()), (404, "ROUTE_NOT_FOUND"), "{path} {host}");
        }
        for (method, path) in
            [("PUT", "/orders"), ("DELETE", "/orders"), ("POST", ID), ("TRACE", "/orders"), ("OPTIONS", "/orders")]
        {
            let answer = ask(method, path, host).await;
            assert_eq!((answer.status, answer.refusal().0.as_str()), (405, "METHOD_NOT_ALLOWED"), "{method} {path} {host}");
            assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{answer:?}");
            assert!(!answer.head.to_lowercase().contains("access-control"));
        }
    }
    for foreign in ["evil.example", "localhost.evil.example", "[::2]"] {
        let answer = ask("GET", "/orders", foreign).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (421, "HOST_NOT_ALLOWED"), "{foreign}");
    }
    let through = ask("GET", "http://evil.example/orders", "localhost").await;
    assert_eq!(through.status, 421, "what stands in the request line counts too");
    for ours in ["localhost", "127.0.0.1", "127.8.9.1:1", "[::1]", "[::1]:3000"] {
        assert_eq!(ask("GET", "/orders", ours).await.status, 200, "{ours}");
    }
    let foreign_and_bad = b"POST /orders HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\ncontent-length: 1\r\n\r\n{";
    assert_eq!(api.raw(foreign_and_bad).await.status, 421, "the host answers before the body");
}

pub async fn sizes_answer_before_anything_is_read(world: &World) {
    let api = world.api().await;
    let padded = format!("{B}{}", " ".repeat(262_144 - B.len()));
    assert_eq!(api.post("", &padded).await.status, 201);
    for expect in ["", "expect: 100-continue\r\n"] {
        let head = format!(
            "POST /orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{expect}content-length: 262145\r\n\r\n"
        );
        let large = api.raw(head.as_bytes()).await;
        assert_eq!((large.status, large.refusal().0.as_str()), (413, "BODY_TOO_LARGE"), "and no 100 before it");
    }
    let head = "POST /orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = format!("{head}{:x}\r\n{padded} \r\n0\r\n\r\n", padded.len() + 1);
    let large = api.raw(chunks.as_bytes()).await;
    assert_eq!((large.status, large.refusal().0.as_str()), (413, "BODY_TOO_LARGE"));
    let long = api.get(&format!("/orders?customerId={}", "x".repeat(9000))).await;
    assert_eq!((long.status, long.refusal().0.as_str()), (414, "URI_TOO_LONG"));
    let large_get = api.send("GET", "/orders", &[], &vec![b'x'; 300_000]).await;
    assert_eq!((large_get.status, large_get.refusal().0.as_str()), (413, "BODY_TOO_LARGE"));
    let query = api.send("POST", "/orders?debug=1", &[JSON], B.as_bytes()).await;
    assert_eq!(query.refusal().1, BTreeSet::from(["debug UNKNOWN_FIELD".to_owned()]));
    assert_eq!(api.orders().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_gets_a_bare_400_or_nothing_and_the_rest_never_runs() {
    on_sqlite(async |world| {
        let api = world.api().await;
        let smuggled = String::from_utf8(request("POST", "/orders", &[JSON], B.as_bytes())).unwrap();
        let post = "POST /orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        for head in [
            &format!("{post}content-length: 5\r\ncontent-length: 6\r\n\r\n"),
            &format!("{post}content-length: +5\r\n\r\n"),
            &format!("{post}content-length: -1\r\n\r\n"),
            &format!("{post}transfer-encoding: gzip\r\n\r\n"),
            "POST /orders HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET /orders HTTP/1.1\r\n\r\n",
            "GET /nope HTTP/1.1\r\n\r\n",
            "GET /orders HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
            "GET /orders HTTP/1.1\r\nhost: a b\r\n\r\n",
            "GET /orders HTTP/1.1\r\nhost: localhost\r\nx-a: a\rb\r\n\r\n",
            "GET /orders HTTP/1.1\r\nhost: localhost\r\nx-a: a\nb\r\n\r\n",
            "GET /orders HTTP/1.1\r\nhost: localhost\r\nx-a: a\0b\r\n\r\n",
            "GET /orders HTTP/1.1\r\nhost: localhost\r\nx-a: a\r\n b\r\n\r\n",
            "garbage\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}",
        ] {
            let all = api.bytes(api.http, format!("{head}{smuggled}").as_bytes()).await;
            let text = String::from_utf8_lossy(&all);
            assert!(text.is_empty() || (text.starts_with("HTTP/1.1 400") && text.ends_with("\r\n\r\n")), "{head:?}: {text}");
            assert_eq!(text.matches("HTTP/1.1").count(), usize::from(!text.is_empty()), "{head:?}: {text}");
        }
        let bad_chunk = format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n{smuggled}");
        assert_eq!(api.raw(bad_chunk.as_bytes()).await.status, 400, "and the connection is closed");
        assert_eq!(api.orders().await, 0);
        api.works().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chunked_body_counts_beside_a_length() {
    on_sqlite(async |world| {
        let api = world.api().await;
        let chunked = format!("{:x}\r\n{B}\r\n0\r\n\r\n", B.len());
        for pair in ["content-length: 5\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 5\r\n"]
        {
            let head = format!(
                "POST /orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n{pair}\r\n"
            );
            assert_eq!(api.raw(format!("{head}{chunked}").as_bytes()).await.status, 201, "{pair}");
        }
        assert_eq!(api.orders().await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_or_too_large_headers_are_refused_and_the_connection_closed() {
    on_sqlite(async |world| {
        let api = world.api().await;
        let fields = |count: usize| (0..count).fold(String::new(), |text, n| format!("{text}x-{n}: v\r\n"));
        let many = format!("GET /orders HTTP/1.1\r\nhost: localhost\r\n{}\r\n", fields(100));
        let large = format!("GET /orders HTTP/1.1\r\nhost: localhost\r\nx-large: {}\r\n\r\n", "x".repeat(17 * 1024));
        for head in [many, large] {
            let all = api.bytes(api.http, head.as_bytes()).await;
            let text = String::from_utf8_lossy(&all);
            assert!(text.starts_with("HTTP/1.1 431") && text.ends_with("\r\n\r\n"), "{text}");
        }
        let fits = format!(
            "GET /orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-large: {}\r\n{}\r\n",
            "x".repeat(14 * 1024),
            fields(97)
        );
        assert_eq!(api.raw(fits.as_bytes()).await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_after_a_refusal_and_after_an_ignored_body() {
    on_sqlite(async |world| {
        let api = world.api().await;
        let mut stream = TcpStream::connect(api.http).await.unwrap();
        let base = request("POST", "/orders", &[JSON], B.as_bytes());
        for before in [
            request("POST", "/orders", &[JSON], b"{}"),
            request("POST", "/orders", &[JSON], b"{"),
            request("POST", "/orders", &[("content-type", "text/plain")], B.as_bytes()),
            request("GET", "/orders", &[], &[b'x'; 1024]),
            request("GET", "/nope", &[], b""),
            request("PUT", "/orders", &[], B.as_bytes()),
        ] {
            stream.write_all(&before).await.unwrap();
            read_answer(&mut stream).await;
            stream.write_all(&base).await.unwrap();
            assert_eq!(read_answer(&mut stream).await.status, 201, "{}", String::from_utf8_lossy(&before));
        }
        let both = [base.clone(), base].concat();
        stream.write_all(&both[..both.len() / 2]).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.status, 201);
        stream.write_all(&both[both.len() / 2..]).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.status, 201);
    })
    .await;
}

pub async fn an_open_call_is_finished_in_the_drain(world: &World) {
    let mut api = world.api().await;
    let hold = api.hold("k").await;
    let order = request("POST", "/orders", &[JSON, ("x-idempotency-key", "k")], B.as_bytes());
    let mut stream = TcpStream::connect(api.http).await.unwrap();
    stream.write_all(&order).await.unwrap();
    api.until_statements(1).await;
    api.drain.cancel();
    while TcpStream::connect(api.http).await.is_ok() {}
    hold.release().await;
    assert_eq!(read_answer(&mut stream).await.status, 201);
    api.ended().await;
    assert_eq!(api.orders().await, 1);
}
