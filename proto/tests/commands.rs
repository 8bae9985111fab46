//! Invalid and valid bodies of `POST /orders`.

use minishop_contracts::Validate;
use minishop_contracts::json::{self, JsonError};
use minishop_contracts::orders::v1::{CreateOrderRequest, GetOrderRequest, OrderItem};
use minishop_core::violation::{FieldCode, Violation};

use crate::support::{BASE, expected, listed};

/// Decodes and validates a body as the API does, without the checks that need the currency.
fn answer(body: &str) -> Vec<String> {
    match json::decode_command::<CreateOrderRequest>(body.as_bytes()) {
        Ok(command) => listed(&command.violations()),
        Err(JsonError::Fields(partial)) => listed(&partial.into_violations()),
        Err(JsonError::Syntax(_)) => vec!["JSON_INVALID".to_owned()],
    }
}

#[track_caller]
fn assert_answer(body: &str, violations: &[&str]) {
    assert_eq!(answer(body), expected(violations), "{body}");
}

fn with_customer(json: &str) -> String {
    format!(r#"{{"customerId":{json},"items":[{{"productId":"p1","qty":2,"price":10.5}}]}}"#)
}

fn with_items(json: &str) -> String {
    format!(r#"{{"customerId":"c1","items":{json}}}"#)
}

fn with_line(product: &str, qty: &str, price: &str) -> String {
    with_items(&format!(r#"[{{"productId":{product},"qty":{qty},"price":{price}}}]"#))
}

fn base() -> CreateOrderRequest {
    CreateOrderRequest {
        customer_id: "c1".into(),
        items: vec![OrderItem { product_id: "p1".into(), qty: 2, price: Some(10.5) }],
        currency: None,
    }
}

#[track_caller]
fn command(body: &str) -> CreateOrderRequest {
    match json::decode_command(body.as_bytes()) {
        Ok(command) => command,
        Err(error) => panic!("{body}: {error:?}"),
    }
}

#[test]
fn proto_names_and_quoted_numbers_mean_the_same_order() {
    assert_eq!(command(BASE), base());
    let other = r#"{"customer_id":"c1","items":[{"product_id":"p1","qty":"2","price":"10.5"}]}"#;
    assert_eq!(command(other), base());
    let escaped = r#" { "items" : [ { "price":1.05e1, "qty":2, "productId":"\u0070\u0031" } ], "customerId":"c1" } "#;
    assert_eq!(command(escaped), base());
}

#[test]
fn a_customer_id_is_one_visible_text() {
    let long = format!("\"{}\"", "a".repeat(129));
    for (json, code) in [
        ("\"\"", "REQUIRED"),
        (long.as_str(), "TOO_LONG"),
        ("\" c1\"", "INVALID_FORMAT"),
        ("\"c1\u{A0}\"", "INVALID_FORMAT"),
        ("\"   \"", "INVALID_FORMAT"),
        (r#""a\u0000b""#, "INVALID_CHARACTER"),
        (r#""a\nb""#, "INVALID_CHARACTER"),
        (r#""a\u202Eb""#, "INVALID_CHARACTER"),
        (r#""a\u200Bb""#, "INVALID_CHARACTER"),
        (r#""\uFEFFab""#, "INVALID_CHARACTER"),
        ("7", "WRONG_TYPE"),
        ("null", "WRONG_TYPE"),
        (r#"["c1"]"#, "WRONG_TYPE"),
    ] {
        assert_answer(&with_customer(json), &[&format!("customerId {code}")]);
    }
    assert_answer(r#"{"items":[{"productId":"p1","qty":2,"price":10.5}]}"#, &["customerId REQUIRED"]);
}

#[test]
fn a_customer_id_is_kept_byte_for_byte() {
    for text in [
        "a",
        &"🦀".repeat(128),
        "Café & Filhos, Ltda. #7",
        "a@b.example",
        "'; DROP TABLE orders;--",
        "../../etc/passwd",
        "<script>",
        "\u{E9}",
        "e\u{301}",
    ] {
        let body = with_customer(&format!("\"{text}\""));
        assert_answer(&body, &[]);
        assert_eq!(command(&body).customer_id, text);
    }
}

#[test]
fn items_are_a_list_of_1_to_100_objects() {
    let line = r#"{"productId":"p1","qty":1,"price":1}"#;
    let lines = |n: usize| with_items(&format!("[{}]", vec![line; n].join(",")));
    let bad = r#"{"productId":"","qty":0,"pric":1}"#;
    assert_answer(r#"{"customerId":"c1"}"#, &["items REQUIRED"]);
    assert_answer(&with_items("[]"), &["items REQUIRED"]);
    assert_answer(&lines(1), &[]);
    assert_answer(&lines(2), &[]);
    assert_answer(&lines(100), &[]);
    assert_answer(&lines(101), &["items TOO_MANY"]);
    let bad = with_items(&format!("[{}]", vec![bad; 101].join(",")));
    assert_answer(&bad, &["items TOO_MANY"]);
    assert_answer(&with_items("{}"), &["items WRONG_TYPE"]);
    assert_answer(&with_items("null"), &["items WRONG_TYPE"]);
    assert_answer(&with_items("[null]"), &["items[0] WRONG_TYPE"]);
    assert_answer(&with_items(&format!("[7,{line},[]]")), &["items[0] WRONG_TYPE", "items[2] WRONG_TYPE"]);
}

#[test]
fn a_product_id_follows_the_rules_of_a_customer_id() {
    let long = format!("\"{}\"", "p".repeat(129));
    for (json, code) in
        [("\"\"", "REQUIRED"), (long.as_str(), "TOO_LONG"), ("\" p1\"", "INVALID_FORMAT"), (r#""p\u0007""#, "INVALID_CHARACTER")]
    {
        assert_answer(&with_line(json, "2", "10.5"), &[&format!("items[0].productId {code}")]);
    }
    assert_answer(&with_items(r#"[{"qty":2,"price":10.5}]"#), &["items[0].productId REQUIRED"]);
}

#[test]
fn a_quantity_is_a_whole_number_in_range() {
    for fine in ["1", "1000000", "\"7\""] {
        assert_answer(&with_line("\"p1\"", fine, "10.5"), &[]);
    }
    for outside in ["0", "-1", "1000001", "2147483647"] {
        assert_answer(&with_line("\"p1\"", outside, "10.5"), &["items[0].qty OUT_OF_RANGE"]);
    }
    assert_answer(&with_items(r#"[{"productId":"p1","price":10.5}]"#), &["items[0].qty OUT_OF_RANGE"]);
    for wrong in ["1.5", "2.0", "1e2", "\"two\"", "true", "null", "4294967298", "\"2.0\"", "\"+2\"", "\" 2\"", "\"\"", "[]", "{}"]
    {
        assert_answer(&with_line("\"p1\"", wrong, "10.5"), &["items[0].qty WRONG_TYPE"]);
    }
}

#[test]
fn a_price_is_a_number_from_zero() {
    for (json, price) in [
        ("0", 0.0),
        ("-0.0", 0.0),
        ("0.01", 0.01),
        ("10.50", 10.5),
        ("1e1", 10.0),
        ("1e-2", 0.01),
        ("4399074046731.48", 4_399_074_046_731.48),
        ("3746.9900000000002", 3_746.990_000_000_000_2),
        ("0.30000000000000004", 0.300_000_000_000_000_04),
        ("\"1e1\"", 10.0),
    ] {
        let body = with_line("\"p1\"", "1", json);
        assert_answer(&body, &[]);
        assert_eq!(command(&body).items[0].price, Some(price), "{json}");
    }
    for wrong in ["\"ten\"", "\" 1\"", "true", "\"\"", "\"+1\"", "\".5\"", "\"inf\"", "\"nan\"", "\"0x1\"", "[1]"] {
        assert_answer(&with_line("\"p1\"", "1", wrong), &["items[0].price WRONG_TYPE"]);
    }
    for outside in ["-0.01", "1e300", "\"NaN\"", "\"Infinity\"", "\"-Infinity\"", "\"1e400\""] {
        assert_answer(&with_line("\"p1\"", "1", outside), &["items[0].price OUT_OF_RANGE"]);
    }
    assert_answer(&with_items(r#"[{"productId":"p1","qty":1}]"#), &["items[0].price REQUIRED"]);
    assert_answer(&with_line("\"p1\"", "1", "null"), &["items[0].price REQUIRED"]);
}

#[test]
fn a_price_that_prost_brings_is_held_to_the_same_range() {
    for price in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.01, 1e300] {
        let mut order = base();
        order.items[0].price = Some(price);
        assert_eq!(listed(&order.violations()), ["items[0].price OUT_OF_RANGE"]);
        assert_eq!(order.violations()[0].field, "items[0].price");
    }
    assert_eq!(listed(&CreateOrderRequest::default().violations()), ["customerId REQUIRED", "items REQUIRED"]);
}

#[test]
fn a_currency_is_absent_or_three_capitals() {
    let with = |json: &str| BASE.replacen('{', &format!(r#"{{"currency":{json},"#), 1);
    for fine in ["null", "\"BRL\"", "\"ABC\""] {
        assert_answer(&with(fine), &[]);
    }
    assert_eq!(command(&with("null")).currency, None);
    for wrong in ["\"usd\"", "\"US\"", "\"usd1\"", "\"\""] {
        assert_answer(&with(wrong), &["currency INVALID_FORMAT"]);
    }
    assert_answer(&with("986"), &["currency WRONG_TYPE"]);
}

#[test]
fn a_name_that_is_not_known_is_refused() {
    let with = |member: &str| BASE.replacen('{', &format!("{{{member},"), 1);
    assert_answer(&with(r#""custmerId":"x""#), &["custmerId UNKNOWN_FIELD"]);
    assert_answer(&with(r#""total":21"#), &["total UNKNOWN_FIELD"]);
    assert_answer(&with(r#""status":"processed""#), &["status UNKNOWN_FIELD"]);
    let line = BASE.replace(r#""qty""#, r#""quantitty":5,"qty""#);
    assert_answer(&line, &["items[0].quantitty UNKNOWN_FIELD"]);
    // The client's own name is shown as sent, not converted to a JSON name of ours.
    assert_answer(&with(r#""some_name":1"#), &["some_name UNKNOWN_FIELD"]);
}

fn messages(body: &str) -> Vec<String> {
    match json::decode_command::<CreateOrderRequest>(body.as_bytes()) {
        Err(JsonError::Fields(partial)) => partial.into_violations().into_iter().map(|v| v.message.into_owned()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_name_gets_a_hint() {
    let with = |name: &str| messages(&BASE.replacen('{', &format!(r#"{{"{name}":1,"#), 1));
    assert_eq!(with("custmerId"), ["is not known here; did you mean customerId?"]);
    assert_eq!(with("CURRENCY"), ["is not known here; did you mean currency?"]);
    assert_eq!(with("total"), ["is not known here; known are customerId, items, currency"]);
    let long = "x".repeat(10_000);
    let body = BASE.replacen('{', &format!(r#"{{"{long}":1,"#), 1);
    let Err(JsonError::Fields(partial)) = json::decode_command::<CreateOrderRequest>(body.as_bytes()) else {
        panic!("an unknown name is refused")
    };
    assert_eq!(partial.violations[0].field, "x".repeat(64));
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let twice = BASE.replacen('{', r#"{"customerId":"c1","#, 1);
    assert_answer(&twice, &["customerId DUPLICATE_FIELD"]);
    let both = BASE.replacen('{', r#"{"customer_id":"c1","#, 1);
    assert_answer(&both, &["customerId DUPLICATE_FIELD"]);
    let null_first = BASE.replacen('{', r#"{"currency":null,"currency":"BRL","#, 1);
    assert_answer(&null_first, &["currency DUPLICATE_FIELD"]);
    let thrice = BASE.replace(r#""qty":2"#, r#""qty":"two","qty":0,"qty":1"#);
    assert_answer(&thrice, &["items[0].qty DUPLICATE_FIELD"]);
    let items = BASE.replacen('{', r#"{"items":[{"qty":"x"}],"#, 1);
    assert_answer(&items, &["items DUPLICATE_FIELD"]);
}

#[test]
fn everything_that_is_wrong_comes_at_once() {
    let body = r#"{"custmerId":"c1","items":[{"productId":"","qty":0,"price":1.999},{"productId":"p2","qty":"two","price":-1}]}"#;
    let Err(JsonError::Fields(mut partial)) = json::decode_command::<CreateOrderRequest>(body.as_bytes()) else {
        panic!("an unknown name is refused")
    };
    // Counting decimals needs the currency: `core` does it, on the readable part.
    assert_eq!(partial.message.items[0].price, Some(1.999));
    partial.violations.push(Violation::new("items[0].price", FieldCode::TooManyDecimals, "too many decimals"));
    let seven = [
        "custmerId UNKNOWN_FIELD",
        "customerId REQUIRED",
        "items[0].productId REQUIRED",
        "items[0].qty OUT_OF_RANGE",
        "items[0].price TOO_MANY_DECIMALS",
        "items[1].qty WRONG_TYPE",
        "items[1].price OUT_OF_RANGE",
    ];
    assert_eq!(listed(&partial.into_violations()), expected(&seven));

    let line = r#"{"productId":"p1","qty":0,"price":1}"#;
    assert_eq!(answer(&with_items(&format!("[{}]", vec![line; 50].join(",")))).len(), 50);
}

#[test]
fn what_is_no_json_is_told_by_line_and_column() {
    let deep_lists = "[".repeat(100_000);
    let deep_objects = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    let deep_member = format!(r#"{{"customerId":"c1","x":{deep_objects}}}"#);
    for (body, line, column) in [
        ("", 1, 0),
        ("customerId=c1", 1, 1),
        (r#"{"customerId":"c1",}"#, 1, 20),
        ("{}{}", 1, 3),
        ("\u{FEFF}{}", 1, 1),
        ("{'customerId':'c1'}", 1, 2),
        ("{\"customerId\":\"c\n1\"}", 2, 0),
        ("{\"customerId\":NaN}", 1, 15),
        ("{\n  \"customerId\": 01\n}", 2, 18),
        (r#"{"customerId":1e400}"#, 1, 19),
        (r#"{"customerId":"\ud800"}"#, 1, 22),
        ("[{}]", 1, 1),
        ("\"x\"", 1, 1),
        (" null", 1, 2),
        ("\n7", 2, 1),
        (deep_lists.as_str(), 1, 128),
        (deep_objects.as_str(), 1, 636),
        (deep_member.as_str(), 1, 654),
    ] {
        let short = &body[..body.len().min(60)];
        match json::decode_command::<CreateOrderRequest>(body.as_bytes()) {
            Err(JsonError::Syntax(at)) => {
                assert_eq!((at.line, at.column), (line, column), "{short}: {}", at.message);
                assert!(!at.message.contains("line"), "{}", at.message);
            }
            other => panic!("{short}: {other:?}"),
        }
    }
}

#[test]
fn what_is_no_utf8_is_no_json() {
    let utf16: Vec<u8> = BASE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for body in [b"{\"customerId\":\"\xFF\"}".as_slice(), &utf16] {
        let answer = json::decode_command::<CreateOrderRequest>(body);
        assert!(matches!(answer, Err(JsonError::Syntax(_))), "{answer:?}");
    }
    let second_line = json::decode_command::<CreateOrderRequest>(b"{\n \xFF}");
    let Err(JsonError::Syntax(at)) = second_line else { panic!("{second_line:?}") };
    assert_eq!((at.line, at.column, at.message.as_str()), (2, 2, "not UTF-8"));
}

#[test]
fn an_order_id_is_a_uuid() {
    let get = |id: &str| listed(&GetOrderRequest { order_id: id.into() }.violations());
    assert_eq!(get(""), ["orderId REQUIRED"]);
    assert_eq!(get("123"), ["orderId INVALID_FORMAT"]);
    assert_eq!(get("{018f3f5e-7aaa-7bbb-8ccc-0123456789ab}"), ["orderId INVALID_FORMAT"]);
    assert_eq!(get("018F3F5E-7AAA-7BBB-8CCC-0123456789AB"), [""; 0]);
}
