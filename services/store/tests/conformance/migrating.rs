//! The upgrade from the outbox with ids (up to migration 6) to the one with gapless numbers.

use std::collections::BTreeMap;

use bytes::Bytes;
use minishop_contracts::key::spread;
use minishop_store::shard_of;
use minishop_store::{NewEvent, NewOrder, Role, Store, postgres, sqlite};
use minishop_testkit::database::{Database, Engine, settings};
use minishop_testkit::rows::{clock, event, order, order_id, order_of, outbox};
use minishop_testkit::wait::becomes;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, Executor as _, PgConnection, SqliteConnection};
use tokio::task::JoinSet;

static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");
static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
/// The last migration of the old outbox.
const OLD: i64 = 6;

/// The old build's statement that accepts orders on PostgreSQL.
const OLD_ACCEPT: &str = "WITH input AS (SELECT * FROM UNNEST($1::smallint[], $2::uuid[], $3::text[], $4::bytea[], $5::uuid[], \
    $6::int[], $7::bytea[], $8::bytea[], $9::text[], $10::text[], $11::bytea[], $12::text[], $13::text[], $14::bigint[], \
    $15::text[], $16::text[], $17::text[], $18::timestamptz[]) WITH ORDINALITY AS t(shard, event_id, topic, record_key, \
    order_id, order_version, payload, headers, client_id, idempotency_key, fingerprint, customer_id, currency, total_minor, \
    items, correlation_id, traceparent, created_at, n)), \
    made AS (INSERT INTO orders (order_id, client_id, idempotency_key, fingerprint, customer_id, status, version, currency, \
    total_minor, items, correlation_id, traceparent, created_event_id, created_at) \
    SELECT order_id, client_id, idempotency_key, fingerprint, customer_id, 'created', 1, currency, total_minor, items::jsonb, \
    correlation_id, traceparent, event_id, created_at FROM input ORDER BY n \
    ON CONFLICT (client_id, idempotency_key) DO NOTHING RETURNING order_id), \
    queued AS (INSERT INTO outbox (shard, event_id, topic, record_key, order_id, order_version, payload, headers) \
    SELECT shard, event_id, topic, record_key, order_id, order_version, payload, headers \
    FROM input JOIN made USING (order_id) ORDER BY n RETURNING order_id, id) \
    SELECT coalesce(array_agg(order_id), '{}'), coalesce(array_agg(id), '{}') FROM queued";

/// The old build's other statements with the outbox, on PostgreSQL.
const OLD_POSTGRES: &[&str] = &[
    "WITH e AS (SELECT * FROM UNNEST($1::smallint[], $2::uuid[], $3::text[], $4::bytea[], $5::uuid[], \
    $6::int[], $7::bytea[], $8::bytea[], $9::uuid[], $10::int[], $11::text[], $12::timestamptz[], $13::uuid[]) WITH ORDINALITY \
    AS t(shard, event_id, topic, record_key, order_id, order_version, payload, headers, subject, expected, status, at, cause, \
    n)), \
    done AS (UPDATE orders o SET status = e.status, version = o.version + 1, settled_event_id = e.event_id FROM e \
    WHERE o.order_id = e.subject AND o.status = 'created' AND o.version = e.expected \
    RETURNING e.n, o.order_id AS subject, o.version, e.status, e.at, e.cause, e.shard, e.event_id, e.topic, e.record_key, \
    e.order_id, e.order_version, e.payload, e.headers), \
    told AS (INSERT INTO timeline (order_id, version, kind, at, cause) SELECT subject, version, status, at, cause FROM done \
    ORDER BY n), \
    queued AS (INSERT INTO outbox (shard, event_id, topic, record_key, order_id, order_version, payload, headers) \
    SELECT shard, event_id, topic, record_key, subject, order_version, payload, headers FROM done ORDER BY n \
    RETURNING order_id, id) \
    SELECT coalesce(array_agg(order_id), '{}'), coalesce(array_agg(id), '{}') FROM queued",
    "WITH queued AS (INSERT INTO outbox (shard, event_id, topic, record_key, order_id, order_version, payload, \
    headers) SELECT shard, event_id, topic, record_key, order_id, order_version, payload, headers FROM UNNEST($1::smallint[], \
    $2::uuid[], $3::text[], $4::bytea[], $5::uuid[], $6::int[], $7::bytea[], $8::bytea[]) WITH ORDINALITY AS t(shard, \
    event_id, topic, record_key, order_id, order_version, payload, headers, n) ORDER BY n RETURNING id) \
    SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM queued",
    "WITH done AS (UPDATE orders SET status = $3, version = version + 1, settled_event_id = $4 \
    WHERE order_id = $1 AND status = 'created' AND version = $2 RETURNING order_id, version, created_event_id), \
    told AS (INSERT INTO timeline (order_id, version, kind, at, cause, detail) \
    SELECT order_id, version, $3, $5, $6, $7::jsonb FROM done), \
    due AS (UPDATE parked p SET state = CASE p.state WHEN 'dead' THEN 'retrying' ELSE p.state END, \
    attempts = CASE p.state WHEN 'dead' THEN 0 ELSE p.attempts END, \
    next_attempt_at = CASE WHEN p.state = 'dead' OR (p.state = 'retrying' AND p.leased_until IS NULL) THEN clock_timestamp() \
    ELSE p.next_attempt_at END \
    FROM done WHERE p.order_id = done.order_id AND (p.blocks OR p.event_id = done.created_event_id)), \
    queued AS (INSERT INTO outbox (shard, event_id, topic, record_key, order_id, order_version, payload, headers) \
    SELECT $8, $4, $9, $10, order_id, version, $11, $12 FROM done RETURNING id) SELECT id FROM queued",
    "SELECT o.shard, o.id, o.event_id, o.topic, o.record_key, o.order_id, o.order_version, o.payload, o.headers \
    FROM UNNEST($1::smallint[]) s(shard) \
    CROSS JOIN LATERAL (SELECT * FROM outbox p WHERE p.shard = s.shard AND p.id <> ALL($3::bigint[]) ORDER BY p.id LIMIT $2) o \
    ORDER BY o.shard, o.id",
    "DELETE FROM outbox o USING UNNEST($1::smallint[], $2::bigint[]) d(shard, id) WHERE o.shard = d.shard AND o.id = d.id",
    "UPDATE relay_lease SET epoch = epoch + CASE WHEN owner IS DISTINCT FROM $1 THEN 1 ELSE 0 END, owner = $1, \
    expires_at = clock_timestamp() + interval '10 s' WHERE shard = ANY($2)",
];

/// The old build's statements with the outbox, on SQLite.
const OLD_SQLITE: &[&str] = &[
    "INSERT INTO outbox (shard, event_id, topic, record_key, order_id, order_version, payload, headers, created_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING event_id, id",
    "SELECT o.shard, o.id, o.event_id, o.topic, o.record_key, o.order_id, o.order_version, o.payload, o.headers \
    FROM json_each(?1) s CROSS JOIN outbox o \
    ON o.id IN (SELECT i.id FROM outbox i WHERE i.shard = s.value \
    AND i.id NOT IN (SELECT value FROM json_each(?3)) ORDER BY i.id LIMIT ?2) ORDER BY o.shard, o.id",
    "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?1))",
    "SELECT count(*), min(created_at) FROM outbox",
];

/// Returns the old build's shard of a key: it had sixteen for each role.
fn old_shard(role: Role, key: &[u8]) -> i16 {
    role.first_shard() + i16::try_from(spread(key) % 16).unwrap()
}

/// Returns events of many keys of both roles, mixed, with and without optional values, in the order of their commits.
fn old_rows() -> Vec<(Role, NewEvent)> {
    let key = |n: usize| format!("c{}", n * 7 % 60);
    let row = |n: usize| {
        let role = if n.is_multiple_of(3) { Role::Worker } else { Role::Api };
        let whole = event(role, &key(n), order_id(), 1);
        let event = NewEvent { payload: Some(Bytes::from(format!("value {n}"))), ..whole };
        (
            role,
            if n.is_multiple_of(50) { NewEvent { order_id: None, order_version: None, payload: None, ..event } } else { event },
        )
    };
    (0..600).map(row).collect()
}

/// Formats rows as the values of an INSERT.
fn values(rows: &[(Role, NewEvent)], bytes: impl Fn(&[u8]) -> String, last: &str) -> String {
    let or_null = |text: Option<String>| text.unwrap_or_else(|| "NULL".to_owned());
    let row = |(role, event): &(Role, NewEvent)| {
        let shard = old_shard(*role, &event.record_key);
        let order = or_null(event.order_id.map(|id| bytes(id.0.as_bytes())));
        let version = or_null(event.order_version.map(|version| version.to_string()));
        let payload = or_null(event.payload.as_ref().map(|payload| bytes(payload)));
        let (id, key, headers) = (bytes(event.event_id.0.as_bytes()), bytes(&event.record_key), bytes(&event.headers));
        format!("({shard}, {id}, '{}', {key}, {order}, {version}, {payload}, {headers}{last})", event.topic)
    };
    rows.iter().map(row).collect::<Vec<_>>().join(", ")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Checks that every row is in its new shard, in the order of the old ids, and that numbers continue behind them.
async fn assert_moved(store: &Store, rows: Vec<(Role, NewEvent)>) {
    let mut wanted: BTreeMap<i16, Vec<NewEvent>> = BTreeMap::new();
    for (role, event) in rows {
        let shard = shard_of(role, &event.record_key);
        wanted.entry(shard).or_default().push(NewEvent { shard, ..event });
    }
    let mut found: BTreeMap<i16, Vec<NewEvent>> = BTreeMap::new();
    for row in outbox(store).await {
        let events = found.entry(row.event.shard).or_default();
        events.push(row.event);
        assert_eq!((row.number, row.set_aside), (i64::try_from(events.len()).unwrap(), false));
    }
    assert_eq!(found.len(), 8);
    assert_eq!(found, wanted);
    let next = order_of("a", "next", "c0");
    let made = store.orders.intake().await.unwrap().accept(std::slice::from_ref(&next)).await.unwrap();
    let before = i64::try_from(wanted[&next.event.shard].len()).unwrap();
    assert_eq!(made[&next.head.order_id], before + 1, "numbers go on behind what was moved");
    let stats = store.outbox.stats().await.unwrap();
    assert_eq!(stats.depth, 600 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_an_upgrade_moves_every_row_in_its_order_and_the_old_build_can_do_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("minishop.db");
    let mut old = SqliteConnection::connect(&format!("{}?mode=rwc", path.to_str().unwrap())).await.unwrap();
    SQLITE.run_to(OLD, &mut old).await.unwrap();
    let rows = old_rows();
    let columns = "shard, event_id, topic, record_key, order_id, order_version, payload, headers, created_at";
    let values = values(&rows, |bytes| format!("X'{}'", hex(bytes)), ", 1760000000000");
    old.execute(AssertSqlSafe(format!("INSERT INTO outbox ({columns}) VALUES {values}"))).await.unwrap();
    for statement in OLD_SQLITE {
        (&mut old).prepare(sqlx::SqlStr::from_static(statement)).await.unwrap();
    }
    old.close().await.unwrap();
    let store = sqlite::open(&path, clock(), true).await.unwrap();
    let mut old = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    for statement in OLD_SQLITE {
        let error = (&mut old).prepare(sqlx::SqlStr::from_static(statement)).await.err().unwrap();
        assert!(error.to_string().contains("no such table"), "{statement}: {error}");
    }
    assert_moved(&store, rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_an_upgrade_moves_every_row_in_its_order_and_the_old_build_can_do_nothing() {
    let Some(database) = Database::fresh(Engine::Postgres).await else { return };
    let url = database.url();
    let mut old = PgConnection::connect(url).await.unwrap();
    POSTGRES.run_to(OLD, &mut old).await.unwrap();
    let rows = old_rows();
    let columns = "shard, event_id, topic, record_key, order_id, order_version, payload, headers";
    let bytes = |bytes: &[u8]| {
        if bytes.len() == 16 { format!("'{}'::uuid", hex(bytes)) } else { format!("'\\x{}'::bytea", hex(bytes)) }
    };
    let insert = format!("INSERT INTO outbox ({columns}) VALUES {}", values(&rows, bytes, ""));
    old.execute(AssertSqlSafe(insert)).await.unwrap();
    let all = || OLD_POSTGRES.iter().copied().chain([OLD_ACCEPT]);
    for statement in all() {
        (&mut old).prepare(sqlx::SqlStr::from_static(statement)).await.unwrap();
    }
    let store = postgres::connect(url, &settings(true)).await.unwrap();
    let mut another = PgConnection::connect(url).await.unwrap();
    for statement in all() {
        let error = (&mut another).prepare(sqlx::SqlStr::from_static(statement)).await.err().unwrap();
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned);
        assert_eq!(code.as_deref(), Some("42P01"), "{statement}: {error}");
    }
    assert_moved(&store, rows).await;
}

/// Accepts an order as the old build did.
async fn accept_as_before(connection: &mut PgConnection, order: &NewOrder) -> sqlx::Result<usize> {
    let event = &order.event;
    let query = sqlx::query_as::<_, (Vec<uuid::Uuid>, Vec<i64>)>(OLD_ACCEPT)
        .bind(vec![old_shard(Role::Api, &event.record_key)])
        .bind(vec![event.event_id.0])
        .bind(vec![&*event.topic])
        .bind(vec![&event.record_key[..]])
        .bind(vec![order.head.order_id.0])
        .bind(vec![event.order_version])
        .bind(vec![event.payload.as_deref()])
        .bind(vec![&event.headers[..]])
        .bind(vec![&*order.head.client_id.0])
        .bind(vec![order.head.key.as_str()])
        .bind(vec![&order.fingerprint.0[..]])
        .bind(vec![&*order.head.customer_id])
        .bind(vec![order.head.currency.as_deref()])
        .bind(vec![order.head.total_minor])
        .bind(vec![&*order.items])
        .bind(vec![order.head.correlation_id.as_str()])
        .bind(vec![order.traceparent.as_deref()])
        .bind(vec![order.head.created_at]);
    Ok(query.fetch_one(connection).await?.0.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_the_old_build_accepts_during_the_upgrade_is_moved_or_is_not_accepted_at_all() {
    let Some(database) = Database::fresh(Engine::Postgres).await else { return };
    let url = database.url();
    let mut first = PgConnection::connect(url).await.unwrap();
    POSTGRES.run_to(OLD, &mut first).await.unwrap();
    let mut second = PgConnection::connect(url).await.unwrap();
    let orders: Vec<NewOrder> = (0..3).map(|n| order("a", &format!("k{n}"))).collect();
    assert_eq!(accept_as_before(&mut second, &orders[0]).await.unwrap(), 1);
    // One old process is before its commit when the upgrade begins; another one comes while the upgrade waits.
    first.execute("BEGIN").await.unwrap();
    assert_eq!(accept_as_before(&mut first, &orders[1]).await.unwrap(), 1);
    let (mut late, order, settings) = (JoinSet::new(), orders[2].clone(), settings(true));
    let meanwhile = async {
        becomes("transactions that wait", async || database.blocked().await, 1).await;
        late.spawn(async move { accept_as_before(&mut second, &order).await });
        becomes("transactions that wait", async || database.blocked().await, 2).await;
        first.execute("COMMIT").await.unwrap();
        late.join_next().await.unwrap().unwrap()
    };
    let (store, refused) = futures::join!(postgres::connect(url, &settings), meanwhile);
    let store = store.unwrap();
    assert!(matches!(refused, Err(sqlx::Error::Database(_))), "{refused:?}");
    assert!(accept_as_before(&mut first, &orders[2]).await.is_err(), "also with a statement that was prepared before");
    let moved: Vec<_> = outbox(&store).await.into_iter().map(|row| (row.number, row.event.event_id)).collect();
    assert_eq!(moved, [(1, orders[0].event.event_id), (2, orders[1].event.event_id)]);
    let known = async |order: &NewOrder| store.reads.order(&order.head.client_id, order.head.order_id).await.unwrap().is_some();
    assert_eq!((known(&orders[0]).await, known(&orders[1]).await, known(&orders[2]).await), (true, true, false));
}
