//! Slow and silent clients. All wait at the same time.

use std::time::{Duration, Instant};

use minishop_testkit::database::Engine;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{Api, read_answer, request};
use crate::world::on;

const LONGEST: Duration = Duration::from_secs(90);

/// Sends `begin`, then one byte after each pause; returns the answer and how long the connection lived.
async fn dribble(to: std::net::SocketAddr, begin: &[u8], byte: Option<Duration>) -> (String, Duration) {
    let started = Instant::now();
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(begin).await.unwrap();
    let mut all = Vec::new();
    loop {
        match timeout(byte.unwrap_or(LONGEST), stream.read_buf(&mut all)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => break,
            Err(_) => assert!(started.elapsed() < LONGEST, "never closed"),
        }
        if byte.is_some() && all.is_empty() {
            let _ = stream.write_all(b"x").await;
        }
    }
    (String::from_utf8_lossy(&all).into_owned(), started.elapsed())
}

async fn closed_without_an_answer(what: &str, end: impl Future<Output = (String, Duration)>) {
    let (text, after) = end.await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 408") || !text.contains("HTTP/1.1"), "{what}: {text}");
    assert!((Duration::from_secs(9)..Duration::from_secs(12)).contains(&after), "{what}: after {after:?}");
}

async fn timed_out(what: &str, end: impl Future<Output = (String, Duration)>) {
    let (text, after) = end.await;
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("REQUEST_TIMEOUT"), "{what}: {text}");
    assert!((Duration::from_secs(29)..Duration::from_secs(33)).contains(&after), "{what}: after {after:?}");
}

/// After an answer, an idle connection is kept for 75 seconds; once a next head has begun, for ten.
async fn kept_after_an_answer(api: &Api, then: &[u8], seconds: std::ops::Range<u64>) {
    let mut stream = TcpStream::connect(api.http).await.unwrap();
    stream.write_all(&request("GET", "/orders", &[], b"")).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status, 200);
    let started = Instant::now();
    stream.write_all(then).await.unwrap();
    let mut rest = Vec::new();
    timeout(LONGEST, stream.read_to_end(&mut rest)).await.expect("closed").unwrap_or_default();
    assert!(seconds.contains(&started.elapsed().as_secs()), "{then:?}: after {:?}", started.elapsed());
}

async fn all_slow_clients(api: &Api) {
    let second = |n| Some(Duration::from_secs(n));
    let post = b"POST /orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    tokio::join!(
        closed_without_an_answer("silent", dribble(api.http, b"", None)),
        closed_without_an_answer("half a request line", dribble(api.http, b"GET /ord", None)),
        closed_without_an_answer("a header byte now and then", dribble(api.http, b"GET / HTTP/1.1\r\nx-slow: ", second(2))),
        closed_without_an_answer("silent, gRPC", dribble(api.grpc, b"", None)),
        closed_without_an_answer("half the preface", dribble(api.grpc, b"PRI * HTTP/2", None)),
        kept_after_an_answer(api, b"", 74..79),
        kept_after_an_answer(api, b"GET /ord", 9..13),
        timed_out("a body that stops", dribble(api.http, post, None)),
        timed_out("a body byte now and then", dribble(api.http, post, second(10))),
    );
    api.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_cut_off() {
    on(Engine::Sqlite, async |world| all_slow_clients(&world.api().await).await).await;
}
