//! Single orders whose sequence the test decides.

use std::time::{Duration, Instant};

use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;
use minishop_testkit::rest::try_post;
use serde_json::Value;

use crate::support::load::Promise;

/// Timeout for an API to answer with success, whatever was unavailable before.
const RECOVERY: Duration = Duration::from_secs(20);

/// Orders for a customer under a key, and retries until the order is acknowledged.
pub fn order(api: &Process, key: &str, customer: &str) -> Promise {
    let body = format!(r#"{{"customerId":"{customer}","items":[{{"productId":"p1","qty":2,"price":10.5}}]}}"#);
    let sent = Instant::now();
    let answer = eventually(RECOVERY, "the order is acknowledged", || {
        let answer = try_post(api.addr("http"), "/orders", &[("x-idempotency-key", key)], &body).unwrap();
        assert!(matches!(answer.status, 201 | 503), "{answer:?}");
        (answer.status == 201).then_some(answer)
    });
    let acknowledged = Instant::now();
    let order = serde_json::from_str::<Value>(&answer.body).unwrap()["orderId"].as_str().unwrap().parse().unwrap();
    Promise { key: key.to_owned(), order, customer: customer.to_owned(), total_minor: 2100, sent, acknowledged }
}
