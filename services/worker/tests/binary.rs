//! The real `minishop-worker`, on PostgreSQL and Kafka (`MINISHOP_TEST_POSTGRES`, `MINISHOP_TEST_KAFKA`).

use std::process::Command;

use minishop_testkit::database::{Database, Engine};
use minishop_testkit::process::{Process, command, refused};
use minishop_testkit::rest::get;
use minishop_testkit::servers::server;
use minishop_testkit::topics::fresh_topics;

fn worker() -> Command {
    command(env!("CARGO_BIN_EXE_minishop-worker"), &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_tells_its_health_and_ends_when_asked() {
    let (Some(database), Some(kafka)) = (Database::fresh(Engine::Postgres).await, server("MINISHOP_TEST_KAFKA")) else { return };
    let prefix = fresh_topics(&kafka, 1).await;
    let mut command = worker();
    command.env("DATABASE_URL", database.url()).env("KAFKA_BROKERS", kafka).env("MINISHOP_TOPIC_PREFIX", prefix);
    let mut process = Process::start(command);
    let ready = &process.ready;
    let addr = ready.trim().strip_prefix("ready admin=").unwrap_or_else(|| panic!("it serves nothing else: {ready}"));
    let parts = get(addr, "/readyz?verbose");
    assert!(parts.status == 200 && parts.body.contains("[+] store ok"), "{parts:?}");
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn without_servers_it_says_what_it_needs() {
    let (code, said) = refused(worker());
    assert_eq!(code, Some(2));
    assert!(said.contains("DATABASE_URL") && said.contains("KAFKA_BROKERS"), "{said}");
}
