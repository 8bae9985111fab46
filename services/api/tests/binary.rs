//! The real `minishop-api`, on PostgreSQL and Kafka (`MINISHOP_TEST_POSTGRES`, `MINISHOP_TEST_KAFKA`).

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

#[path = "../../store/tests/conformance/bouncer.rs"]
mod bouncer;
#[path = "binary/process.rs"]
mod process;
#[expect(dead_code, reason = "the tests of the API over the wire use the rest")]
#[path = "api/world.rs"]
mod world;

use std::time::Duration;

use minishop_bus::topics;
use minishop_core::ids::Ids as _;
use minishop_platform::clock::SystemIds;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use bouncer::Bouncer;
use process::Process;
use world::{Kind, Place, World, on};

const B: &str = r#"{"customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5}]}"#;
const PATIENCE: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "names the server for tests")]
fn kafka() -> String {
    std::env::var("MINISHOP_TEST_KAFKA").expect("MINISHOP_TEST_KAFKA is not set: point it to a Kafka server")
}

#[expect(clippy::disallowed_methods, reason = "names the server for tests")]
fn redis() -> String {
    std::env::var("MINISHOP_TEST_REDIS").expect("MINISHOP_TEST_REDIS is not set: point it to a Redis server")
}

/// Returns a topic prefix that no other test uses.
fn prefix() -> String {
    SystemIds.random().iter().fold("api-".to_owned(), |text, byte| format!("{text}{byte:02x}")) + "."
}

async fn database(world: &World) -> String {
    match world.place().await {
        Place::Url(url) => url,
        Place::File(_) => panic!("a binary of its own runs on PostgreSQL"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_takes_orders_and_ends_when_asked() {
    on(Kind::Postgres, async |world| {
        let (url, kafka, prefix) = (database(world).await, kafka(), prefix());
        topics::create(&kafka, &prefix, 1, PATIENCE).await.unwrap();
        let env = [("DATABASE_URL", url.as_str()), ("KAFKA_BROKERS", &kafka), ("MINISHOP_TOPIC_PREFIX", &prefix)];
        let mut api = Process::start(&env);
        assert!(api.ready.starts_with("ready http=127.0.0.1:"), "{}", api.ready);
        assert_eq!(api.post("/orders", B).0, 201);
        let (code, parts) = api.admin("/readyz?verbose");
        assert!(code == 200 && parts.contains("[+] kafka ok") && !parts.contains("[!]"), "{parts}");
        assert!(api.admin("/metrics").1.contains("minishop_api_accepts_total{outcome=\"created\",protocol=\"rest\"} 1"));
        assert_eq!(api.terminate(), Some(0));
    })
    .await;
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let secret = "postgres://u:hunter2@x@h/d";
    let env = [("DATABASE_URL", secret), ("MINISHOP_HTTP_ADR", "x"), ("MINISHOP_DRAIN_WAIT", "5"), ("RUST_LOG", "a=b=c")];
    let (code, said) = Process::refused(&env, &["--nope", "--grpc-addr", "nonsense"]);
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
    on(Kind::Postgres, async |world| {
        let url = database(world).await;
        let lenient = "ignore_startup_parameters = extra_float_digits,options";
        for (more, query) in [("pool_mode = transaction", ""), ("pool_mode = session", "?options=-c%20geqo%3Doff")] {
            let more = if query.is_empty() { format!("{more}\n{lenient}") } else { more.to_owned() };
            let bouncer = Bouncer::before(&url, &more).await;
            let env = [("DATABASE_URL", format!("{}{query}", bouncer.url(&url))), ("KAFKA_BROKERS", "127.0.0.1:1".to_owned())];
            let refused = move || {
                let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
                Process::refused(
                    &env,
                    &["--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"],
                )
            };
            let (code, said) = tokio::task::block_in_place(refused);
            let last = said.lines().last().unwrap_or_default();
            assert_eq!(code, Some(2), "{said}");
            assert!(last.starts_with("error[POOLER_UNSUPPORTED] store: DATABASE_URL points to a connection pooler"), "{said}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_tell_each_other_through_redis() {
    on(Kind::Postgres, async |world| {
        let (url, kafka, prefix) = (database(world).await, kafka(), prefix());
        topics::create(&kafka, &prefix, 1, PATIENCE).await.unwrap();
        let redis = redis();
        let env = [
            ("DATABASE_URL", url.as_str()),
            ("KAFKA_BROKERS", &kafka),
            ("MINISHOP_TOPIC_PREFIX", &prefix),
            ("REDIS_URL", &redis),
        ];
        let (mut writer, mut other) = (Process::start(&env), Process::start(&env));
        let received = |process: &Process| {
            let counted =
                |line: &str| line.strip_prefix("minishop_redis_hints_received_total ").is_some_and(|count| count != "0");
            process.admin("/metrics").1.lines().any(counted)
        };
        let told = async {
            // The other process leads the shards of about half of the customers; it may not have subscribed yet.
            for n in 0.. {
                assert_eq!(writer.post("/orders", &B.replace("c1", &format!("c{n}"))).0, 201);
                if received(&other) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("a hint comes");
        assert!(writer.admin("/metrics").1.contains("minishop_redis_calls_total{call=\"publish\",outcome=\"ok\"}"));
        assert_eq!((writer.terminate(), other.terminate()), (Some(0), Some(0)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_away_is_said_and_changes_nothing_and_a_refused_login_ends_the_start() {
    on(Kind::Postgres, async |world| {
        let (url, kafka, prefix) = (database(world).await, kafka(), prefix());
        topics::create(&kafka, &prefix, 1, PATIENCE).await.unwrap();
        let env = [("DATABASE_URL", url.as_str()), ("KAFKA_BROKERS", &kafka), ("MINISHOP_TOPIC_PREFIX", &prefix)];
        let mut api = Process::start(&[&env[..], &[("REDIS_URL", "redis://127.0.0.1:1")]].concat());
        until(&api, "Redis is said to be away", |parts| parts.contains("[!] redis: ")).await;
        assert_eq!(api.post("/orders", B).0, 201);
        assert_eq!(api.terminate(), Some(0));
        let wrong = redis().replace("redis://", "redis://nobody:wrong@");
        let free = ["--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"];
        let (code, said) = Process::refused(&[&env[..], &[("REDIS_URL", &wrong)]].concat(), &free);
        assert_eq!(code, Some(2));
        assert!(said.contains("error[DEPENDENCY_REFUSED] REDIS_URL") && !said.contains("wrong"), "{said}");
    })
    .await;
}

/// Forwards connections to `to` until it is dropped.
async fn forward(from: TcpListener, to: String) {
    let mut open = JoinSet::new();
    loop {
        let (mut near, _) = from.accept().await.unwrap();
        let to = to.clone();
        open.spawn(async move {
            let mut far = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

async fn until(process: &Process, what: &str, holds: impl Fn(&str) -> bool) {
    let seen = async {
        loop {
            let (code, parts) = process.admin("/readyz?verbose");
            assert_eq!(code, 200, "{parts}");
            if holds(&parts) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect(what);
}

#[tokio::test(flavor = "multi_thread")]
async fn started_while_kafka_is_away_it_takes_orders_and_asks_for_the_topics_later() {
    on(Kind::Postgres, async |world| {
        let (url, kafka, prefix) = (database(world).await, kafka(), prefix());
        let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = reserved.local_addr().unwrap();
        drop(reserved);
        let brokers = addr.to_string();
        let env = [("DATABASE_URL", url.as_str()), ("KAFKA_BROKERS", &brokers), ("MINISHOP_TOPIC_PREFIX", &prefix)];
        let mut api = Process::start(&env);
        assert_eq!(api.post("/orders", B).0, 201);
        until(&api, "Kafka is said to be away", |parts| parts.contains("[!] kafka: the event log does not answer")).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(TcpListener::bind(addr).await.unwrap(), kafka.clone()));
        until(&api, "missing topics are named", |parts| parts.contains("TOPIC_MISSING") && parts.contains("orders.created"))
            .await;
        topics::create(&kafka, &prefix, 1, PATIENCE).await.unwrap();
        until(&api, "all is well", |parts| parts.contains("[+] kafka ok") && !parts.contains("[!]")).await;
        assert_eq!(api.terminate(), Some(0));
    })
    .await;
}
