//! A test of the checker itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::support::checker::overtaken;
use crate::support::load::Promise;

#[test]
fn an_order_behind_one_that_was_sent_after_its_answer_is_counted() {
    let began = Instant::now();
    let promise = |n: u128, sent: u64, acknowledged: u64| {
        let at = |seconds| began + Duration::from_secs(seconds);
        let (order, customer) = (Uuid::from_u128(n), "c1".to_owned());
        Promise { key: String::new(), order, customer, total_minor: 1, sent: at(sent), acknowledged: at(acknowledged) }
    };
    // The first and the second were in flight together; the third was sent when both were answered.
    let promises = [promise(1, 0, 3), promise(2, 1, 2), promise(3, 4, 5)];
    let promises: HashMap<Uuid, &Promise> = promises.iter().map(|promise| (promise.order, promise)).collect();
    for (orders, wanted) in [([1, 2, 3], 0), ([2, 1, 3], 0), ([1, 3, 2], 1), ([2, 3, 1], 1), ([3, 1, 2], 2)] {
        let first = HashMap::from([("c1".to_owned(), orders.map(Uuid::from_u128).to_vec())]);
        assert_eq!(overtaken(&first, &promises), wanted, "{orders:?}");
    }
}
