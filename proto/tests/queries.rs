//! Invalid and valid queries of `GET /orders`.

use minishop_contracts::Validate;
use minishop_contracts::orders::v1::{ListOrdersRequest, order};
use minishop_contracts::query;

use crate::support::{expected, listed};

fn answer(text: &str) -> Vec<String> {
    match query::decode::<ListOrdersRequest>(text) {
        Ok(request) => listed(&request.violations()),
        Err(partial) => listed(&partial.into_violations()),
    }
}

#[track_caller]
fn assert_answer(text: &str, violations: &[&str]) {
    assert_eq!(answer(text), expected(violations), "{text}");
}

#[test]
fn empty_parameters_are_absent() {
    for text in ["", "&", "customerId=&status=&pageSize=&pageToken=", "customerId", "pageSize=0"] {
        let request = query::decode::<ListOrdersRequest>(text).expect("nothing is wrong");
        assert_eq!(request, ListOrdersRequest::default(), "{text}");
    }
}

#[test]
fn parameters_are_decoded_and_may_have_proto_names() {
    let text = "customerId=Caf%C3%A9+%26%20Filhos&status=created&page_size=500&pageToken=a%3D";
    let request = query::decode::<ListOrdersRequest>(text).expect("nothing is wrong");
    assert_eq!(request.customer_id, "Café & Filhos");
    assert_eq!(request.status(), order::Status::Created);
    assert_eq!(request.page_size, 500);
    assert_eq!(request.page_token, "a=");
}

#[test]
fn a_page_size_is_0_to_500() {
    assert_answer("pageSize=500", &[]);
    assert_answer("pageSize=-1", &["pageSize OUT_OF_RANGE"]);
    assert_answer("pageSize=501", &["pageSize OUT_OF_RANGE"]);
    assert_answer("pageSize=many", &["pageSize WRONG_TYPE"]);
    assert_answer("pageSize=1.0", &["pageSize WRONG_TYPE"]);
}

#[test]
fn a_page_token_has_at_most_512_bytes() {
    assert_answer(&format!("pageToken={}", "a".repeat(512)), &[]);
    assert_answer(&format!("pageToken={}", "a".repeat(513)), &["pageToken INVALID_TOKEN"]);
}

#[test]
fn a_status_is_one_of_the_words() {
    for word in ["created", "processed", "failed", "cancelled"] {
        assert_answer(&format!("status={word}"), &[]);
    }
    for wrong in ["lost", "CREATED", "1", "0", "unspecified"] {
        assert_answer(&format!("status={wrong}"), &["status UNKNOWN_VALUE"]);
    }
    let request = ListOrdersRequest { status: 99, ..Default::default() };
    assert_eq!(listed(&request.violations()), ["status UNKNOWN_VALUE"]);
}

#[test]
fn names_are_known_and_stand_once() {
    assert_answer("pagesize=3", &["pagesize UNKNOWN_FIELD"]);
    assert_answer("status=created&status=failed", &["status DUPLICATE_FIELD"]);
    assert_answer("pageSize=&page_size=3", &["pageSize DUPLICATE_FIELD"]);
    assert_answer(
        "pagesize=3&status=x&pageSize=501&%ff=1",
        &["pageSize OUT_OF_RANGE", "pagesize UNKNOWN_FIELD", "status UNKNOWN_VALUE", "\u{FFFD} UNKNOWN_FIELD"],
    );
    let partial = query::decode::<ListOrdersRequest>("pagesize=3").expect_err("an unknown name is refused");
    assert_eq!(partial.violations[0].message, "is not known here; did you mean pageSize?");
}

#[test]
fn a_customer_id_follows_its_rules() {
    assert_answer(&format!("customerId={}", "a".repeat(129)), &["customerId TOO_LONG"]);
    assert_answer("customerId=a%00b", &["customerId INVALID_CHARACTER"]);
    assert_answer("customerId=a%FF", &["customerId WRONG_TYPE"]);
    assert_answer("customerId=%20a", &["customerId INVALID_FORMAT"]);
}

#[test]
fn a_request_without_parameters_refuses_them() {
    assert_eq!(query::none(""), []);
    let refused = query::none("debug=1&debug=2&customerId=c1");
    assert_eq!(listed(&refused), ["customerId UNKNOWN_FIELD", "debug UNKNOWN_FIELD"]);
}
