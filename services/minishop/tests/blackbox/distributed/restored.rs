//! The database is replaced by an older copy under running processes, as at a fail-over to a replica that lagged.

use std::time::Duration;

use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;
use minishop_testkit::rest::post;

use crate::support::checker::Ledger as _;
use crate::support::shop::Shop;

const CUSTOMERS: usize = 6;
const SOON: Duration = Duration::from_secs(20);

const KEEP: &str = "
    CREATE SCHEMA kept;
    DO $$ DECLARE t text; BEGIN
        FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations' LOOP
            EXECUTE format('CREATE TABLE kept.%1$I AS TABLE public.%1$I', t);
        END LOOP;
        CREATE TABLE kept.sequences AS SELECT sequencename AS name, last_value FROM pg_sequences WHERE schemaname = 'public';
    END $$";

const PUT_BACK: &str = "
    DO $$ DECLARE t text; BEGIN
        SET LOCAL session_replication_role = replica;
        FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'kept' AND tablename <> 'sequences' LOOP
            EXECUTE format('TRUNCATE public.%1$I CASCADE', t);
        END LOOP;
        FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'kept' AND tablename <> 'sequences' LOOP
            EXECUTE format('INSERT INTO public.%1$I OVERRIDING SYSTEM VALUE SELECT * FROM kept.%1$I', t);
        END LOOP;
        PERFORM setval(format('public.%I', name)::regclass, coalesce(last_value, 1), last_value IS NOT NULL) FROM kept.sequences;
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
    END $$";

/// Orders for each customer, at the APIs in turn; retries while the database has just cut its connections.
fn order(apis: &[Process], round: &str) {
    for (n, api) in (0..CUSTOMERS).zip(apis.iter().cycle()) {
        let body = format!(r#"{{"customerId":"c{n}","items":[{{"productId":"{round}","qty":2,"price":10.5}}]}}"#);
        let key = format!("{round}-{n}");
        eventually(SOON, "an order is acknowledged", || {
            post(api.addr("http"), "/orders", &[("idempotency-key", &key)], &body).status == 201
        });
    }
}

fn processed(shop: &Shop, count: usize) {
    let expected = i64::try_from(count).unwrap();
    eventually(SOON, "everything is processed and published", || {
        let orders = shop.number("SELECT count(*) FROM orders WHERE status = 'processed'");
        orders == expected && shop.records("orders.processed").len() >= count
    });
}

#[test]
fn orders_that_an_older_copy_of_the_database_has_forgotten_are_adopted_and_processed() {
    let shop = Shop::new();
    let apis = [shop.api(), shop.api()];
    let workers = [shop.worker(), shop.worker()];
    order(&apis, "before");
    processed(&shop, CUSTOMERS);
    shop.execute(KEEP);
    order(&apis, "lost");
    processed(&shop, 2 * CUSTOMERS);
    shop.execute(PUT_BACK);
    assert_eq!(shop.number("SELECT count(*) FROM orders"), i64::try_from(CUSTOMERS).unwrap());
    order(&apis, "after");
    processed(&shop, 3 * CUSTOMERS);
    assert_eq!(shop.number("SELECT count(*) FROM orders WHERE adopted"), i64::try_from(CUSTOMERS).unwrap());
    assert_eq!(shop.number("SELECT count(*) FROM parked"), 0);
    for mut process in apis.into_iter().chain(workers) {
        assert_eq!(process.terminate(), Some(0));
    }
}
