//! Failing events and their repair.

use crate::support::dead_letters;
use crate::support::endpoint::Endpoint;
use crate::support::place::Place;
use crate::support::repair;
use crate::support::shop::Shop;

/// Runs a scenario with an API and two workers that call an endpoint.
fn with_an_endpoint(scenario: fn(&Place<'_>, &Endpoint)) {
    let shop = Shop::new();
    let endpoint = Endpoint::start();
    let (api, mut workers) = (shop.api(), [shop.worker_that_calls(&endpoint), shop.worker_that_calls(&endpoint)]);
    shop.place(&api, |place| scenario(place, &endpoint));
    for worker in &mut workers {
        assert_eq!(worker.terminate(), Some(0), "a drain ends with 0");
    }
}

#[test]
fn a_failing_customer_waits_and_is_repaired_in_order() {
    with_an_endpoint(repair::a_failing_customer_waits_and_is_repaired_in_order);
}

#[test]
fn dead_letters_are_looked_at_processed_again_and_given_up() {
    with_an_endpoint(dead_letters::dead_letters_are_looked_at_processed_again_and_given_up);
}
