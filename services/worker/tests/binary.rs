//! The real `minishop-worker`, on PostgreSQL and Kafka (`MINISHOP_TEST_POSTGRES`, `MINISHOP_TEST_KAFKA`).

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use minishop_bus::topics;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

#[expect(clippy::disallowed_methods, reason = "names the servers for tests")]
fn server(name: &str) -> Option<String> {
    let server = std::env::var(name).ok();
    let may_be_missing = std::env::var("MINISHOP_TEST_ALLOW_MISSING").is_ok_and(|value| value == "1");
    assert!(server.is_some() || may_be_missing, "{name} is not set: point it to a server, or set MINISHOP_TEST_ALLOW_MISSING=1");
    server
}

async fn run_sql(url: &str, sql: String) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

/// Killed with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minishop-worker"));
    // The developer's own settings must not reach it.
    command.env_clear().env("MINISHOP_DRAIN_WAIT", "0ms").envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn get(addr: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_tells_its_health_and_ends_when_asked() {
    let (Some(postgres), Some(kafka)) = (server("MINISHOP_TEST_POSTGRES"), server("MINISHOP_TEST_KAFKA")) else { return };
    let name = format!("worker_{:032x}", rand::random::<u128>());
    let prefix = format!("{name}.");
    run_sql(&postgres, format!("CREATE DATABASE {name}")).await;
    topics::create(&kafka, &prefix, 1, Duration::from_secs(20)).await.unwrap();
    let url = format!("{}/{name}", postgres.rsplit_once('/').unwrap().0);
    let env = [("DATABASE_URL", url.as_str()), ("KAFKA_BROKERS", &kafka), ("MINISHOP_TOPIC_PREFIX", &prefix)];
    let mut process = Process(command(&env).args(["--admin-addr", "127.0.0.1:0"]).spawn().unwrap());
    let mut ready = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let addr = ready.trim().strip_prefix("ready admin=").unwrap_or_else(|| panic!("it serves nothing else: {ready}"));
    let parts = get(addr, "/readyz?verbose");
    assert!(parts.starts_with("HTTP/1.1 200") && parts.contains("[+] store ok"), "{parts}");
    assert!(Command::new("kill").args(["-TERM", &process.0.id().to_string()]).status().unwrap().success());
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
    run_sql(&postgres, format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

#[test]
fn without_servers_it_says_what_it_needs() {
    let output = command(&[]).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("DATABASE_URL") && said.contains("KAFKA_BROKERS"), "{said}");
}
