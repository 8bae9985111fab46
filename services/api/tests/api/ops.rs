//! The reads and commands of operators, over REST and gRPC.

use std::collections::BTreeSet;

use bytes::Bytes;
use minishop_bus::Headers;
use minishop_contracts::ops::v1::operations_service_client::OperationsServiceClient;
use minishop_contracts::ops::v1::{
    DeadLetterFilter, DiscardDeadLettersRequest, GetDeadLetterRequest, GetOperationRequest, RedriveDeadLettersRequest,
};
use minishop_core::ids::EventId;
use minishop_core::parking::State;
use minishop_store::ParkedEvent;
use minishop_testkit::lot;
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::harness::{Answer, Api};
use crate::world::World;

pub fn parked(n: u8, state: State) -> ParkedEvent {
    ParkedEvent {
        event_id: EventId::from_text(&format!("event-{n}")),
        order_id: None,
        client_id: None,
        event_type: Some("orders.created.v1".into()),
        offset: i64::from(n),
        raw_key: None,
        raw_value: Some(Bytes::from_static(b"{\"a\":1}")),
        raw_headers: Headers::default().with("ce_id", "x").encode(),
        error_fingerprint: Some([n % 2; 32]),
        failed_at: Some(minishop_core::clock::from_millis(1_760_000_000_000)),
        ..lot::parked(&format!("key-{n}"), state, true)
    }
}

impl Api {
    pub async fn park(&self, parked: Vec<ParkedEvent>) {
        lot::park(&self.store, "g", parked).await;
    }

    /// Parks dead letters; returns their ids, oldest first.
    pub async fn dead(&self, count: u8) -> Vec<String> {
        self.park((1..=count).map(|n| parked(n, State::Dead)).collect()).await;
        let letters = self.get("/ops/dead-letters?pageSize=500").await.json();
        letters["deadLetters"].as_array().unwrap().iter().rev().map(|l| l["id"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn command(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes()).await
    }

    pub async fn operators(&self) -> OperationsServiceClient<Channel> {
        OperationsServiceClient::new(self.channel().await)
    }
}

pub fn violations(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|&text| text.to_owned()).collect()
}

pub fn reason(status: &tonic::Status) -> String {
    status.get_error_details().error_info().unwrap().reason.clone()
}

pub fn skipped(answer: &Value) -> Vec<(String, String)> {
    let text = |left: &Value, name: &str| left[name].as_str().unwrap().to_owned();
    answer["skipped"].as_array().unwrap().iter().map(|left| (text(left, "orderId"), text(left, "reason"))).collect()
}

pub async fn an_unknown_dead_letter_or_operation_is_not_found(world: &World) {
    let api = world.api().await;
    let mut operators = api.operators().await;
    for id in ["7", "x", "-1", "01", "%ff", "99999999999999999999", "a b"] {
        let answer = api.get(&format!("/ops/dead-letters/{}", id.replace(' ', "%20"))).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (404, "DEAD_LETTER_NOT_FOUND"), "{id}");
        let status = operators.get_dead_letter(GetDeadLetterRequest { id: id.into() }).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "DEAD_LETTER_NOT_FOUND"), "{id}");
    }
    for id in ["x", "0190163d-8694-739b-aea5-966c26f8ad91"] {
        let answer = api.get(&format!("/ops/operations/{id}")).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (404, "OPERATION_NOT_FOUND"), "{id}");
        let status = operators.get_operation(GetOperationRequest { id: id.into() }).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "OPERATION_NOT_FOUND"), "{id}");
        let control = api.command(&format!("/ops/operations/{id}/control"), &json!({"action": "pause"})).await;
        assert_eq!(control.refusal().0, "OPERATION_NOT_FOUND");
    }
}

pub async fn wrong_redrives_are_named_over_both_protocols(world: &World) {
    let api = world.api().await;
    let ids = api.dead(2).await;
    let many: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    let mut operators = api.operators().await;
    let base = || RedriveDeadLettersRequest { ids: ids.clone(), ..Default::default() };
    for (message, expected) in [
        (RedriveDeadLettersRequest::default(), "ids REQUIRED"),
        (RedriveDeadLettersRequest { filter: Some(DeadLetterFilter::default()), ..base() }, "filter CONFLICT"),
        (RedriveDeadLettersRequest { ids: many, ..base() }, "ids TOO_MANY"),
        (RedriveDeadLettersRequest { rate: Some(0), ..base() }, "rate OUT_OF_RANGE"),
        (RedriveDeadLettersRequest { rate: Some(10_001), ..base() }, "rate OUT_OF_RANGE"),
        (RedriveDeadLettersRequest { failure_ratio: Some(0.0), ..base() }, "failure_ratio OUT_OF_RANGE"),
        (RedriveDeadLettersRequest { failure_ratio: Some(1.5), ..base() }, "failure_ratio OUT_OF_RANGE"),
        (RedriveDeadLettersRequest { failure_ratio: Some(f64::NAN), ..base() }, "failure_ratio OUT_OF_RANGE"),
        (RedriveDeadLettersRequest { reason: "x".repeat(501), ..base() }, "reason TOO_LONG"),
    ] {
        let mut body = serde_json::to_value(&message).unwrap();
        if message.failure_ratio.is_some_and(f64::is_nan) {
            body["failureRatio"] = "NaN".into();
        }
        let answer = api.command("/ops/dead-letters/redrive", &body).await;
        let spelt = expected.replace("failure_ratio", "failureRatio");
        assert_eq!(answer.refusal(), ("VALIDATION_FAILED".to_owned(), violations(&[&spelt])), "{body}");
        let status = operators.redrive_dead_letters(message).await.unwrap_err();
        let found = status.get_error_details().bad_request().unwrap().field_violations[0].clone();
        assert_eq!(format!("{} {}", found.field, found.reason), expected);
    }
    for (body, expected) in [
        (json!({"ids": ids, "dryRun": "yes"}), "dryRun WRONG_TYPE"),
        (json!({"ids": ids, "rates": 3}), "rates UNKNOWN_FIELD"),
        (json!({"ids": [7]}), "ids[0] WRONG_TYPE"),
        (json!({"filter": {"errorFingerprint": "AB"}}), "filter.errorFingerprint INVALID_FORMAT"),
        (json!({"filter": {"orderId": "1"}}), "filter.orderId INVALID_FORMAT"),
    ] {
        let answer = api.command("/ops/dead-letters/redrive", &body).await;
        assert_eq!(answer.refusal().1, violations(&[expected]), "{body}");
    }
    assert_eq!(api.database.count("operation").await, 0);
    assert_eq!(api.database.count("audit").await, 0);
}

pub async fn a_discard_needs_a_reason(world: &World) {
    let api = world.api().await;
    let ids = api.dead(1).await;
    let mut operators = api.operators().await;
    for (reason, expected) in [
        ("", "reason REQUIRED"),
        ("   ", "reason INVALID_FORMAT"),
        (&*"x".repeat(501), "reason TOO_LONG"),
        ("a\nb", "reason INVALID_CHARACTER"),
    ] {
        let answer = api.command("/ops/dead-letters/discard", &json!({"ids": ids, "reason": reason})).await;
        assert_eq!(answer.refusal().1, violations(&[expected]));
        let message = DiscardDeadLettersRequest { ids: ids.clone(), reason: reason.into(), ..Default::default() };
        let status = operators.discard_dead_letters(message).await.unwrap_err();
        let found = status.get_error_details().bad_request().unwrap().field_violations[0].clone();
        assert_eq!(format!("{} {}", found.field, found.reason), expected);
    }
    let absent = api.command("/ops/dead-letters/discard", &json!({"ids": ids})).await;
    assert_eq!(absent.refusal().1, violations(&["reason REQUIRED"]));
    let begun = api.command("/ops/dead-letters/discard", &json!({"ids": ids, "reason": "bytes of a stranger"})).await;
    assert_eq!((begun.status, begun.json()["matched"].as_u64()), (200, Some(1)));
}

pub async fn what_is_left_alone_is_told_with_its_reason(world: &World) {
    let api = world.api().await;
    let ids = api.dead(4).await;
    api.database.sql(&format!("UPDATE parked SET state = 'retrying' WHERE id = {}", ids[0])).await;
    api.database.sql(&format!("UPDATE parked SET redrives = 5 WHERE id = {}", ids[1])).await;
    let first = api.command("/ops/dead-letters/redrive", &json!({"ids": [ids[2]], "operator": "ana"})).await.json();
    assert_eq!((&first["operation"]["state"], &first["operation"]["operator"]), (&json!("running"), &json!("ana")));
    let asked = json!({"ids": [ids[3], ids[3], ids[0], ids[1], ids[2], "4711", "none"]});
    let answer = api.command("/ops/dead-letters/redrive", &asked).await.json();
    assert_eq!(answer["matched"], 1, "one id twice counts once");
    let skipped: BTreeSet<(String, String)> = answer["skipped"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["id"].as_str().unwrap().to_owned(), s["reason"].as_str().unwrap().to_owned()))
        .collect();
    let expected =
        [(&*ids[0], "NOT_DEAD"), (&ids[1], "LOOP_GUARD"), (&ids[2], "TAKEN"), ("4711", "NOT_FOUND"), ("none", "NOT_FOUND")];
    assert_eq!(skipped, expected.iter().map(|(id, why)| ((*id).to_owned(), (*why).to_owned())).collect());
    let unknown = api.command("/ops/dead-letters/redrive", &json!({"ids": ["4711", "none"]})).await;
    assert_eq!((unknown.status, unknown.refusal().0.as_str()), (404, "DEAD_LETTER_NOT_FOUND"));
    let message = RedriveDeadLettersRequest { ids: vec!["x".into()], ..Default::default() };
    let status = api.operators().await.redrive_dead_letters(message).await.unwrap_err();
    assert_eq!(reason(&status), "DEAD_LETTER_NOT_FOUND");
}

pub async fn a_dry_run_tells_the_count_and_changes_nothing(world: &World) {
    let api = world.api().await;
    api.dead(3).await;
    let none = json!({"filter": {"errorCode": "NOTHING_LIKE_IT"}});
    let answer = api.command("/ops/dead-letters/redrive", &none).await.json();
    assert_eq!((&answer["matched"], &answer["operation"]["state"]), (&json!(0), &json!("done")));
    let operations = api.database.count("operation").await;
    let answer = api.command("/ops/dead-letters/redrive", &json!({"filter": {}, "dryRun": true})).await.json();
    assert_eq!((&answer["matched"], &answer["operation"]), (&json!(3), &Value::Null));
    let discard = json!({"filter": {"errorCode": "DATA_INVALID"}, "dryRun": true, "reason": "x"});
    assert_eq!(api.command("/ops/dead-letters/discard", &discard).await.json()["matched"], 3);
    assert_eq!(api.database.count("operation").await, operations);
    assert_eq!(api.database.count("parked WHERE state = 'dead'").await, 3);
}

pub async fn dead_letters_are_listed_grouped_and_read(world: &World) {
    let api = world.api().await;
    let ids = api.dead(5).await;
    let page = api.get("/ops/dead-letters?pageSize=2&errorCode=DATA_INVALID").await.json();
    let token = page["nextPageToken"].as_str().unwrap();
    let listed: Vec<&str> = page["deadLetters"].as_array().unwrap().iter().map(|l| l["id"].as_str().unwrap()).collect();
    assert_eq!(listed, [&*ids[4], &*ids[3]], "newest first");
    let foreign = api.get(&format!("/ops/dead-letters?pageToken={token}")).await;
    assert_eq!(foreign.refusal().1, violations(&["pageToken INVALID_TOKEN"]), "a token of another filter");
    let next = api.get(&format!("/ops/dead-letters?pageSize=9&errorCode=DATA_INVALID&pageToken={token}")).await.json();
    assert_eq!(next["deadLetters"].as_array().unwrap().len(), 3);
    let groups = api.get("/ops/dead-letter-groups").await.json();
    assert_eq!((&groups["groups"][0]["count"], &groups["groups"][1]["count"]), (&json!(3), &json!(2)));
    let fingerprint = groups["groups"][1]["errorFingerprint"].as_str().unwrap();
    let of_group = api.get(&format!("/ops/dead-letters?errorFingerprint={fingerprint}")).await.json();
    assert_eq!(of_group["deadLetters"].as_array().unwrap().len(), 2);
    let one = api.get("/ops/dead-letters?key=key-3").await.json();
    assert_eq!((&one["deadLetters"][0]["id"], one["deadLetters"].as_array().unwrap().len()), (&json!(ids[2]), 1));
    let whole = api.get(&format!("/ops/dead-letters/{}", ids[2])).await.json();
    assert_eq!((&whole["rawValue"], whole.get("rawKey")), (&json!("eyJhIjoxfQ=="), None));
    assert_eq!(whole["headers"], json!([{"name": "ce_id", "value": "eA=="}]));
    assert_eq!((&whole["deadLetter"]["key"], &whole["deadLetter"]["state"]), (&json!("key-3"), &json!("dead")));
    let message = GetDeadLetterRequest { id: ids[2].clone() };
    let over_grpc = api.operators().await.get_dead_letter(message).await.unwrap().into_inner();
    assert_eq!(over_grpc.raw_value.as_deref(), Some(&b"{\"a\":1}"[..]));
    assert_eq!(serde_json::to_value(&over_grpc).unwrap(), whole);
}

pub async fn parked_keys_are_listed_the_oldest_first(world: &World) {
    let api = world.api().await;
    let behind =
        |n, offset| ParkedEvent { event_id: EventId::from_text(&format!("behind-{offset}")), ..parked(n, State::Waiting) };
    api.park(vec![parked(1, State::Dead), behind(1, 1), parked(2, State::Dead), behind(1, 2)]).await;
    let keys = api.get("/ops/parked-keys?pageSize=1").await.json();
    assert_eq!((&keys["keys"][0]["key"], &keys["keys"][0]["waiting"]), (&json!("key-1"), &json!(2)));
    let token = keys["nextPageToken"].as_str().unwrap();
    let rest = api.get(&format!("/ops/parked-keys?pageToken={token}")).await.json();
    assert_eq!((&rest["keys"][0]["key"], &rest["keys"][0]["headState"]), (&json!("key-2"), &json!("dead")));
    assert_eq!(rest["nextPageToken"], "");
}

pub async fn an_operation_is_watched_paused_and_cancelled_and_all_of_it_is_audited(world: &World) {
    let api = world.api().await;
    api.dead(3).await;
    let body = json!({"filter": {"errorClass": "refused"}, "rate": 7, "failureRatio": 0.5, "reason": "fixed", "operator": "ana"});
    let begun = api.command("/ops/dead-letters/redrive", &body).await.json();
    let id = begun["operation"]["id"].as_str().unwrap();
    let path = format!("/ops/operations/{id}");
    let read = api.get(&path).await.json()["operation"].clone();
    assert_eq!(read, begun["operation"]);
    assert_eq!((&read["kind"], &read["rate"], &read["failureRatio"]), (&json!("redrive"), &json!(7), &json!(0.5)));
    assert_eq!((&read["filter"], &read["progress"]["pending"]), (&json!({"errorClass": "refused"}), &json!(3)));
    let control = async |action: &str| {
        let body = json!({"action": action, "operator": "bob", "reason": "a look"});
        api.command(&format!("{path}/control"), &body).await.json()["operation"]["state"].clone()
    };
    assert_eq!(control("pause").await, "paused");
    assert_eq!(control("resume").await, "running");
    assert_eq!(control("cancel").await, "stopped");
    assert_eq!(control("resume").await, "stopped", "what has ended stays as it is");
    let wrong = api.command(&format!("{path}/control"), &json!({"action": "explode"})).await;
    assert_eq!(wrong.refusal().1, violations(&["action UNKNOWN_VALUE"]));
    let none = api.command(&format!("{path}/control"), &json!({})).await;
    assert_eq!(none.refusal().1, violations(&["action REQUIRED"]));
    let items = api.get(&path).await.json()["items"].clone();
    assert_eq!((items.as_array().unwrap().len(), &items[0]["reason"]), (3, &json!("STOPPED")));
    let audit = api.get("/ops/audit").await.json();
    let told: Vec<String> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let text = |name| entry[name].as_str().unwrap();
            assert_eq!((text("operationId"), text("client")), (id, "anonymous"));
            format!("{} {} {}", text("operator"), text("action"), text("outcome"))
        })
        .collect();
    assert_eq!(told, ["bob cancel accepted", "bob resume accepted", "bob pause accepted", "ana redrive accepted"]);
    let list = api.get("/ops/operations?state=stopped&kind=redrive").await.json();
    assert_eq!((list["operations"].as_array().unwrap().len(), &list["nextPageToken"]), (1, &json!("")));
    assert_eq!(api.get("/ops/operations?state=running").await.json()["operations"], json!([]));
}
