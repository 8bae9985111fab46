//! A server that gives a set answer to a `COMMIT`, and what each answer means.

use std::net::SocketAddr;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::postgres::pool::commit;

const READY: &[u8] = b"Z\0\0\0\x05I";
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind][..], &length[..], body].concat()
}

fn error(severity: &str, code: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{code}\0Mas it was told\0\0").as_bytes())
}

/// Serves one session: accepts it, answers its first statement with `answer`, then closes. Ends with the test.
async fn server(answer: Vec<u8>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, mut task) = (listener.local_addr().unwrap(), JoinSet::new());
    task.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1024];
        assert!(stream.read(&mut asked).await.unwrap() > 0, "the start-up message");
        stream.write_all(&[&message(b'R', &[0; 4])[..], READY].concat()).await.unwrap();
        assert!(stream.read(&mut asked).await.unwrap() > 0, "the statement");
        stream.write_all(&answer).await.unwrap();
    });
    (addr, task)
}

async fn connected(addr: SocketAddr) -> PgConnection {
    let options: PgConnectOptions = format!("postgres://u@{addr}/d?sslmode=disable").parse().unwrap();
    options.connect().await.unwrap()
}

/// Commits at a server that gives this answer.
async fn committed(answer: Vec<u8>) -> Result<(), StoreError> {
    let (addr, _task) = server(answer).await;
    commit(&mut connected(addr).await).await.map_err(failed("commit", Lost::Commit))
}

#[tokio::test]
async fn every_error_of_a_commit_but_a_plain_one_leaves_it_in_doubt() {
    assert!(committed([COMMITTED, READY].concat()).await.is_ok());
    // The backend was terminated while its commit waited for the disk: the commit is done.
    let finished = committed([COMMITTED, &error("FATAL", "57P01")].concat()).await;
    assert!(matches!(finished, Err(StoreError::Unknown { .. })), "{finished:?}");
    for (severity, code) in [
        ("FATAL", "57P01"),
        ("FATAL", "57P02"),
        ("FATAL", "57P05"),
        ("FATAL", "25P03"),
        ("FATAL", "XX000"),
        ("PANIC", "58030"),
        ("ERROR", "08P01"),
        ("ERROR", "57P01"),
        ("FATAL", "08P01"),
    ] {
        let outcome = committed(error(severity, code)).await;
        assert!(matches!(outcome, Err(StoreError::Unknown { .. })), "{severity} {code}: {outcome:?}");
    }
    let cut = committed(Vec::new()).await;
    assert!(matches!(cut, Err(StoreError::Unknown { .. })), "{cut:?}");
}

#[tokio::test]
async fn a_plain_error_of_a_commit_says_that_it_was_rolled_back() {
    for code in ["40001", "40P01", "55P03", "57014", "53100", "25006"] {
        let outcome = committed([&error("ERROR", code)[..], READY].concat()).await;
        assert!(matches!(outcome, Err(StoreError::Retry { .. })), "{code}: {outcome:?}");
    }
    let deferred = committed([&error("ERROR", "23503")[..], READY].concat()).await;
    assert!(deferred.is_err_and(|error| error.blames_the_input()));
}

#[tokio::test]
async fn what_ends_a_session_in_which_nothing_was_committed_wrote_nothing() {
    let (addr, _task) = server(error("FATAL", "57P01")).await;
    let asked = sqlx::raw_sql("SELECT 1").execute(&mut connected(addr).await).await;
    let outcome = asked.map_err(failed("read", Lost::Nothing));
    assert!(matches!(outcome, Err(StoreError::Retry { .. })), "{outcome:?}");
}
