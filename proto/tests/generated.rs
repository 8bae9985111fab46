//! Generated code agrees with hand-written code.

use minishop_contracts::ops::v1::{DeadLetter, GetStatusResponse, ListDeadLettersResponse, ParkedCounts};
use minishop_contracts::orders::v1::{CreateOrderResponse, ListOrdersResponse, Order, OrderItem, order};
use minishop_contracts::wkt::Timestamp;
use minishop_contracts::{FILE_DESCRIPTOR_SET, ROUTES, events, headers, json, topics};
use minishop_core::timeline::NoteKind;
use prost_reflect::DescriptorPool;

fn printed<T: serde::Serialize>(message: &T) -> String {
    String::from_utf8(json::to_vec(message)).expect("JSON is UTF-8")
}

#[test]
fn the_answer_prints_as_the_demo_printed_it() {
    let answer = CreateOrderResponse {
        order_id: "01920000-0000-7000-8000-0000000000aa".into(),
        status: order::Status::Created.into(),
        total: Some(21.0),
    };
    let text = r#"{"orderId":"01920000-0000-7000-8000-0000000000aa","status":"created","total":21}"#;
    assert_eq!(printed(&answer), text);
}

#[test]
fn zeros_and_empty_lists_are_printed_and_absent_fields_are_not() {
    assert_eq!(printed(&ListOrdersResponse::default()), r#"{"orders":[],"nextPageToken":""}"#);
    assert_eq!(printed(&ListDeadLettersResponse::default()), r#"{"deadLetters":[],"nextPageToken":""}"#);
    let free = Order {
        order_id: "o".into(),
        customer_id: "c1".into(),
        items: vec![OrderItem { product_id: "p1".into(), qty: 1, price: Some(0.0) }],
        total: Some(0.0),
        currency: None,
        status: order::Status::Processed.into(),
        version: 2,
        created_at: Timestamp::parse("2026-01-31T12:00:00.123456Z"),
        correlation_id: "corr-001".into(),
    };
    let text = concat!(
        r#"{"orderId":"o","customerId":"c1","items":[{"productId":"p1","qty":1,"price":0}],"total":0,"#,
        r#""status":"processed","version":2,"createdAt":"2026-01-31T12:00:00.123456Z","correlationId":"corr-001"}"#,
    );
    assert_eq!(printed(&free), text);
}

#[test]
fn operations_print_counts_as_numbers_and_offsets_as_text() {
    let status = GetStatusResponse { parked: Some(ParkedCounts::default()), ..Default::default() };
    let text =
        r#"{"outboxDepth":0,"oldestOutboxAgeSeconds":0,"parked":{"retrying":0,"waiting":0,"dead":0},"pausedEndpoints":[]}"#;
    assert_eq!(printed(&status), text);
    let dead = DeadLetter { offset: 7, ..Default::default() };
    assert!(printed(&dead).contains(r#""offset":"7""#));
}

#[test]
fn every_call_has_one_route() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("a descriptor set");
    let calls: Vec<String> = pool
        .services()
        .flat_map(|s| s.methods().map(|m| format!("/{}/{}", s.full_name(), m.name())).collect::<Vec<_>>())
        .collect();
    assert_eq!(ROUTES.iter().map(|route| route.rpc).collect::<Vec<_>>(), calls);
    let order = ROUTES.iter().find(|r| r.rpc == "/minishop.orders.v1.OrderService/GetOrder");
    assert_eq!(order.map(|r| (r.method, r.path)), Some(("GET", "/orders/{order_id}")));
}

#[test]
fn descriptors_keep_our_comments_and_options() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("a descriptor set");
    let file = pool.get_file_by_name("minishop/orders/v1/orders.proto").expect("our file");
    assert!(file.file_descriptor_proto().source_code_info.is_some());
    let rules = pool.get_extension_by_name("buf.validate.field").expect("the validation options");
    let message = pool.get_message_by_name("minishop.orders.v1.OrderItem").expect("our message");
    let qty = message.get_field_by_name("qty").expect("its field");
    assert!(qty.options().has_extension(&rules));
    assert!(FILE_DESCRIPTOR_SET.len() < 160_000, "reflection sends this to every caller");
}

#[test]
fn both_status_enums_use_the_same_numbers() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("a descriptor set");
    let all = pool.get_enum_by_name("minishop.orders.v1.Order.Status").expect("our enum");
    let settled = pool.get_enum_by_name("minishop.events.v1.OrderSettled.Status").expect("our enum");
    for value in settled.values() {
        assert_eq!(all.get_value_by_name(value.name()).map(|v| v.number()), Some(value.number()));
    }
}

#[test]
fn settled_events_have_a_type_and_a_topic_of_their_own() {
    use events::v1::order_settled::Status;
    for (status, kind, topic) in [
        (Status::Processed, events::PROCESSED_V1, topics::PROCESSED),
        (Status::Cancelled, events::CANCELLED_V1, topics::CANCELLED),
        (Status::Failed, events::FAILED_V1, topics::FAILED),
    ] {
        assert_eq!((status.event_type(), status.topic()), (Some(kind), Some(topic)));
        assert_eq!(kind, format!("{topic}.v1"));
    }
    assert_eq!(Status::Unspecified.event_type(), None);
    assert_eq!(events::CREATED_V1, format!("{}.v1", topics::CREATED));
}

#[test]
fn topics_take_a_prefix() {
    assert_eq!(topics::prefixed("", topics::CREATED), "orders.created");
    assert_eq!(topics::prefixed("test.", topics::CREATED_DEAD_LETTERS), "test.orders.created.dlq");
    assert!(topics::ALL.iter().all(|topic| topic.starts_with("orders.")));
}

#[test]
fn header_names_are_lower_case() {
    for name in [headers::http::IDEMPOTENCY_KEY, headers::http::CORRELATION_ID, headers::kafka::CE_ID, headers::kafka::DLQ_TOPIC]
    {
        assert_eq!(name, name.to_ascii_lowercase());
    }
}

#[test]
fn the_contract_names_every_kind_of_note_in_a_timeline() {
    let proto = include_str!("../minishop/orders/v1/orders.proto");
    let (_, notes) = proto.split_once("or a note: ").unwrap();
    let (notes, _) = notes.split_once(". More kinds").unwrap();
    let words = notes.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    let named: Vec<&str> = words.filter(|word| !word.is_empty() && *word != "or").collect();
    assert_eq!(named, NoteKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>());
}
