//! Unavailable stores, commits in doubt, and what log and metrics hold about a request.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures::future::join_all;
use minishop_contracts::orders::v1::{CreateOrderRequest, ListOrdersRequest};
use minishop_testkit::database::{Database, Engine};
use minishop_testkit::lines::Lines;
use prost::Message as _;
use serde_json::json;
use tonic::Code;
use tracing_subscriber::EnvFilter;

use crate::grpc::{base, framed};
use crate::grpc_web::{status, web};
use crate::harness::B;
use crate::proxy::Proxy;
use crate::world::{World, on};

pub async fn a_full_outbox_sheds_new_orders_and_reads_go_on(world: &World) {
    let api = world.api_with(|config| config.outbox_limit_rows = -1).await;
    let shed = api.post("k", B).await;
    assert_eq!((shed.status, shed.refusal().0.as_str()), (429, "OUTBOX_FULL"));
    assert!(shed.header("retry-after").is_some());
    assert_eq!(api.get("/orders").await.status, 200);
}

/// Changes a property of the database, and closes all connections, which keep the old one.
async fn alter(database: &Database, property: &str) {
    let name = database.name();
    database.administer(&format!("ALTER DATABASE {name} {property}")).await;
    database.administer(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_said_to_be_and_is_used_again_when_it_is_back() {
    on(Engine::Postgres, async |world| {
        let api = world.api().await;
        api.works().await;
        alter(&api.database, "ALLOW_CONNECTIONS false").await;
        let away = api.post("k", B).await;
        assert_eq!((away.status, away.refusal().0.as_str()), (503, "STORE_UNAVAILABLE"));
        assert_eq!(api.get("/orders").await.refusal().0, "STORE_UNAVAILABLE");
        let over_grpc = api.client().await.list_orders(ListOrdersRequest::default()).await.unwrap_err();
        assert_eq!(over_grpc.code(), Code::Unavailable);
        alter(&api.database, "ALLOW_CONNECTIONS true").await;
        let back = api.post("k", B).await;
        assert_eq!((back.status, back.header("idempotent-replayed")), (201, None), "{back:?}");
        assert_eq!(api.orders().await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_only_reads_refuses_orders_and_shows_them() {
    on(Engine::Postgres, async |world| {
        let api = world.api().await;
        let made = api.post("", B).await;
        alter(&api.database, "SET default_transaction_read_only = on").await;
        let refused = api.post("k", B).await;
        assert_eq!((refused.status, refused.refusal().0.as_str()), (503, "STORE_UNAVAILABLE"));
        assert_eq!(api.get(made.header("location").unwrap()).await.status, 200);
        alter(&api.database, "RESET default_transaction_read_only").await;
        assert_eq!(api.post("k", B).await.status, 201);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_wait_for_an_outbox_shard_are_accepted_in_one_piece_when_it_is_free() {
    on(Engine::Postgres, async |world| {
        let api = world.api().await;
        api.works().await;
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1297305410 AND granted";
        let hold = "BEGIN; SELECT pg_advisory_xact_lock(1297305410, shard) FROM outbox_shard; SELECT pg_sleep(3); ROLLBACK";
        let posting = async {
            while api.database.number(locks).await < 8 {}
            let began = Instant::now();
            let keys: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
            let answers = join_all(keys.iter().map(|key| api.post(key, B))).await;
            (answers, began.elapsed())
        };
        let (_, (answers, took)) = tokio::join!(api.database.sql(hold), posting);
        for answer in &answers {
            assert_eq!((answer.status, answer.header("idempotent-replayed")), (201, None), "{answer:?}");
        }
        assert!(took > Duration::from_secs(2), "they waited: {took:?}");
        assert!(api.scrape().contains("minishop_api_intake_batch_orders_sum 41.0\n"), "no batch was tried twice");
        assert_eq!(api.orders().await, 41);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_commit_lost_its_answer_is_found_and_is_no_replay() {
    on(Engine::Postgres, async |world| {
        let database = world.database().await;
        let proxy = Proxy::start(database.server(), "cut-off", 3).await;
        let behind = database.behind(proxy.addr);
        let api = world.api_on(&behind, |_| {}).await;
        api.works().await;
        let made = api.post("cut-off", B).await;
        assert_eq!((made.status, made.header("idempotent-replayed")), (201, None), "{made:?}");
        assert_eq!(proxy.left(), 0, "three commits lost their answers");
        let again = api.post("cut-off", B).await;
        assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &made.body));
        assert_eq!((api.orders().await, api.events().await.len()), (2, 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_stays_in_doubt_until_its_deadline_is_said_to_be_and_its_key_finds_it() {
    on(Engine::Postgres, async |world| {
        let database = world.database().await;
        let proxy = Proxy::start(database.server(), "in-doubt", usize::MAX).await;
        let api = world.api_on(&database.behind(proxy.addr), |_| {}).await;
        let headers = "x-idempotency-key: in-doubt\r\ngrpc-timeout: 1500m\r\n";
        let body = framed(0, &base().encode_to_vec());
        let call = web(&api, "localhost", "application/grpc-web", headers, &body);
        let others = async {
            api.until_statements(1).await;
            api.works().await;
        };
        let (answer, ()) = tokio::join!(call, others);
        assert_eq!(status(&answer), Code::Unavailable, "{answer:?}");
        let details = STANDARD_NO_PAD.decode(answer.header("grpc-status-details-bin").unwrap().trim_end_matches('=')).unwrap();
        assert!(String::from_utf8_lossy(&details).contains("OUTCOME_UNKNOWN"));
        let after = world.api_on(&database, |_| {}).await;
        let found = after.post("in-doubt", B).await;
        assert_eq!((found.status, found.header("idempotent-replayed"), after.orders().await), (201, Some("true"), 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_a_server_committed_before_it_ended_is_not_said_to_be_unwritten() {
    on(Engine::Postgres, async |world| {
        let database = world.database().await;
        let proxy = Proxy::ending(database.server(), "INSERT INTO operation ").await;
        let api = world.api_on(&database.behind(proxy.addr), |_| {}).await;
        let ids = api.dead(1).await;
        let answer = api.command("/ops/dead-letters/redrive", &json!({"ids": ids})).await;
        assert_eq!(proxy.left(), 0, "the server ended behind the commit");
        assert_eq!((answer.status, answer.refusal().0.as_str()), (503, "OUTCOME_UNKNOWN"), "{answer:?}");
        let begun = api.get("/ops/operations").await.json();
        assert_eq!((begun["operations"].as_array().unwrap().len(), &begun["operations"][0]["state"]), (1, &json!("running")));
    })
    .await;
}

/// Returns everything that this process logs, from all tests.
fn log() -> Lines {
    static LOG: OnceLock<Lines> = OnceLock::new();
    let start = || {
        let log = Lines::default();
        let filter = EnvFilter::new("info,minishop_api=trace,minishop_platform=trace");
        tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(log.clone()).init();
        log
    };
    LOG.get_or_init(start).clone()
}

pub async fn log_lines_of_a_request_carry_its_ids(world: &World) {
    let log = log();
    let api = world.api().await;
    let correlation = format!("corr-{:?}", world.engine);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [("content-type", "application/json"), ("x-correlation-id", &correlation), ("traceparent", &parent)];
    assert_eq!(api.send("POST", "/orders", &headers, B.as_bytes()).await.status, 201);
    assert_eq!(api.send("POST", "/orders", &headers, b"{}").await.status, 400);
    let text = log.text();
    let lines: Vec<serde_json::Value> =
        text.lines().filter(|line| line.contains(&correlation)).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 3, "two for the order, one for the refusal: {text}");
    for line in lines {
        assert_eq!(
            (line["span"]["correlation_id"].as_str(), line["span"]["trace_id"].as_str()),
            (Some(correlation.as_str()), Some(trace)),
            "{line}"
        );
    }
    assert!(api.scrape().contains(&format!("trace_id=\"{trace}\"")), "an exemplar leads to the trace");
}

// One thread, so that the log has no lines of other tests.
#[tokio::test]
async fn credentials_that_nobody_looks_at_are_warned_of_once() {
    on(Engine::Sqlite, async |world| {
        let (lines, _listening) = Lines::of_this_thread();
        let api = world.api().await;
        for _ in 0..3 {
            let headers = [("content-type", "application/json"), ("authorization", "Bearer of-nothing")];
            assert_eq!(api.send("POST", "/orders", &headers, B.as_bytes()).await.status, 201);
        }
        assert_eq!(lines.text().matches("authentication is off").count(), 1);
    })
    .await;
}

pub async fn no_input_is_found_in_the_log(world: &World) {
    const CANARY: &str = "zqcanaryqz";
    let lines = log();
    let api = world.api().await;
    let long = format!("{CANARY}{}", "x".repeat(300));
    let broken = format!("{CANARY}\\n{CANARY}");
    for body in [
        format!("{{\"{CANARY}"),
        B.replace("customerId", CANARY),
        B.replace("customerId", &long),
        B.replace("customerId", &broken),
        B.replace("c1", &long),
        B.replace("c1", &broken),
        B.replace("10.5", &format!("\"{CANARY}\"")),
        B.replace("]}", &format!("],\"currency\":\"{CANARY}\"}}")),
    ] {
        let answer = api.post("", &body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let text = String::from_utf8(answer.body).unwrap();
        assert!(!text.contains(&"x".repeat(65)), "at most 64 characters of the input: {text}");
        assert!(!text.contains('\n'), "{text}");
    }
    for header in ["x-idempotency-key", "x-correlation-id", "traceparent", "tracestate", "host", "authorization", "user-agent"] {
        let value = format!("{CANARY} \"{CANARY}\u{e9}");
        api.send("POST", "/orders", &[("content-type", "application/json"), (header, &value)], B.as_bytes()).await;
    }
    for path in
        [format!("/{CANARY}"), format!("/orders/{CANARY}"), format!("/orders?{CANARY}=1"), format!("/orders?pageToken={CANARY}")]
    {
        api.get(&path).await;
    }
    let message = CreateOrderRequest { customer_id: format!("{CANARY}\n"), items: Vec::new(), currency: None };
    api.client().await.create_order(message).await.unwrap_err();
    api.works().await;
    assert!(!lines.text().contains(CANARY), "{}", lines.text());
    assert!(!api.scrape().contains(CANARY));
}
