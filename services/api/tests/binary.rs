//! The real `minishop-api`, on PostgreSQL and Kafka (`MINISHOP_TEST_POSTGRES`, `MINISHOP_TEST_KAFKA`).

use std::process::Command;
use std::time::Duration;

use minishop_bus::topics;
use minishop_testkit::bouncer::Bouncer;
use minishop_testkit::ctx::NO_BROKERS;
use minishop_testkit::database::{Database, Engine};
use minishop_testkit::forward::forward;
use minishop_testkit::fresh_prefix;
use minishop_testkit::process::{Process, command, refused};
use minishop_testkit::rest::{get, post};
use minishop_testkit::servers::required;
use minishop_testkit::topics::fresh_topics;
use minishop_testkit::wait::eventually;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const B: &str = r#"{"customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5}]}"#;
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns a command of the binary with settings.
fn api(env: &[(&str, &str)]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_minishop-api"), &[]);
    command.envs(env.iter().copied());
    command
}

/// Where the API of a test runs.
struct Place {
    database: Database,
    kafka: String,
    prefix: String,
}

impl Place {
    /// Returns a place without topics.
    async fn new() -> Option<Self> {
        let database = Database::fresh(Engine::Postgres).await?;
        Some(Self { database, kafka: required("MINISHOP_TEST_KAFKA"), prefix: fresh_prefix("api") })
    }

    /// Returns a place with topics.
    async fn with_topics() -> Option<Self> {
        let place = Self::new().await?;
        let prefix = fresh_topics(&place.kafka, 1).await;
        Some(Self { prefix, ..place })
    }

    fn settings(&self) -> [(&str, &str); 3] {
        [("DATABASE_URL", self.database.url()), ("KAFKA_BROKERS", &self.kafka), ("MINISHOP_TOPIC_PREFIX", &self.prefix)]
    }

    fn start(&self, more: &[(&str, &str)]) -> Process {
        Process::start(api(&[&self.settings()[..], more].concat()))
    }
}

fn order(api: &Process, body: &str) -> u16 {
    post(api.addr("http"), "/orders", &[], body).status
}

fn scrape(api: &Process) -> String {
    get(api.addr("admin"), "/metrics").body
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_takes_orders_and_ends_when_asked() {
    let Some(place) = Place::with_topics().await else { return };
    let mut api = place.start(&[]);
    assert!(api.ready.starts_with("ready http=127.0.0.1:"), "{}", api.ready);
    assert_eq!(order(&api, B), 201);
    let parts = get(api.addr("admin"), "/readyz?verbose");
    assert!(parts.status == 200 && parts.body.contains("[+] kafka ok") && !parts.body.contains("[!]"), "{parts:?}");
    assert!(scrape(&api).contains("minishop_api_accepts_total{outcome=\"created\",protocol=\"rest\"} 1"));
    assert_eq!(api.terminate(), Some(0));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let secret = "postgres://u:hunter2@x@h/d";
    let env = [("DATABASE_URL", secret), ("MINISHOP_HTTP_ADR", "x"), ("MINISHOP_DRAIN_WAIT", "5"), ("RUST_LOG", "a=b=c")];
    let mut command = api(&env);
    command.args(["--nope", "--grpc-addr", "nonsense"]);
    let (code, said) = refused(command);
    assert_eq!(code, Some(2));
    for part in
        ["MINISHOP_HTTP_ADR", "--nope", "DATABASE_URL", "KAFKA_BROKERS", "MINISHOP_GRPC_ADDR", "MINISHOP_DRAIN_WAIT", "RUST_LOG"]
    {
        assert!(said.lines().any(|line| line.starts_with("error[") && line.contains(part)), "{part}: {said}");
    }
    assert!(said.lines().count() == 7 && !said.contains("hunter2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_it_cannot_work_with_ends_its_start_with_2() {
    let Some(database) = Database::fresh(Engine::Postgres).await else { return };
    let lenient = "ignore_startup_parameters = extra_float_digits,options";
    for (more, query) in [("pool_mode = transaction", ""), ("pool_mode = session", "?options=-c%20geqo%3Doff")] {
        let more = if query.is_empty() { format!("{more}\n{lenient}") } else { more.to_owned() };
        let bouncer = Bouncer::before(database.server(), &more).await;
        let url = format!("{}{query}", database.behind(bouncer.addr).url());
        let command = api(&[("DATABASE_URL", &url), ("KAFKA_BROKERS", NO_BROKERS)]);
        let (code, said) = tokio::task::block_in_place(move || refused(command));
        let last = said.lines().last().unwrap_or_default();
        assert_eq!(code, Some(2), "{said}");
        assert!(last.starts_with("error[POOLER_UNSUPPORTED] store: DATABASE_URL points to a connection pooler"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_tell_each_other_through_redis() {
    let Some(place) = Place::with_topics().await else { return };
    let redis = required("MINISHOP_TEST_REDIS");
    let [mut writer, mut other] = [(); 2].map(|()| place.start(&[("REDIS_URL", &redis)]));
    let mut customers = 0..;
    let hint = async || {
        // The other process leads the shards of about half of the customers; it may not have subscribed yet.
        let customer = format!("c{}", customers.next().unwrap());
        assert_eq!(order(&writer, &B.replace("c1", &customer)), 201);
        let counted = |line: &str| line.strip_prefix("minishop_redis_hints_received_total ").is_some_and(|count| count != "0");
        scrape(&other).lines().any(counted)
    };
    eventually(PATIENCE, "a hint comes", hint).await;
    assert!(scrape(&writer).contains("minishop_redis_calls_total{call=\"publish\",outcome=\"ok\"}"));
    assert_eq!((writer.terminate(), other.terminate()), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_away_is_said_and_changes_nothing_and_a_refused_login_ends_the_start() {
    let Some(place) = Place::with_topics().await else { return };
    let mut process = place.start(&[("REDIS_URL", "redis://127.0.0.1:1")]);
    until(&process, "Redis is said to be away", |parts| parts.contains("[!] redis: ")).await;
    assert_eq!(order(&process, B), 201);
    assert_eq!(process.terminate(), Some(0));
    let wrong = required("MINISHOP_TEST_REDIS").replace("redis://", "redis://nobody:wrong@");
    let (code, said) = refused(api(&[&place.settings()[..], &[("REDIS_URL", &wrong)]].concat()));
    assert_eq!(code, Some(2));
    assert!(said.contains("error[DEPENDENCY_REFUSED] REDIS_URL") && !said.contains("wrong"), "{said}");
}

async fn until(process: &Process, what: &str, holds: impl Fn(&str) -> bool) {
    let look = async || {
        let parts = get(process.addr("admin"), "/readyz?verbose");
        assert_eq!(parts.status, 200, "{parts:?}");
        if holds(&parts.body) { Ok(()) } else { Err(parts.body) }
    };
    eventually(PATIENCE, what, look).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn started_while_kafka_is_away_it_takes_orders_and_asks_for_the_topics_later() {
    let Some(place) = Place::new().await else { return };
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = reserved.local_addr().unwrap();
    drop(reserved);
    let mut api = place.start(&[("KAFKA_BROKERS", &addr.to_string())]);
    assert_eq!(order(&api, B), 201);
    until(&api, "Kafka is said to be away", |parts| parts.contains("[!] kafka: the event log does not answer")).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(forward(TcpListener::bind(addr).await.unwrap(), place.kafka.clone()));
    until(&api, "missing topics are named", |parts| parts.contains("TOPIC_MISSING") && parts.contains("orders.created")).await;
    topics::create(&place.kafka, &place.prefix, 1, PATIENCE).await.unwrap();
    until(&api, "all is well", |parts| parts.contains("[+] kafka ok") && !parts.contains("[!]")).await;
    assert_eq!(api.terminate(), Some(0));
}
