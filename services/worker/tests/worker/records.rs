//! Records as producers write them: ours, the demo's and unusual ones.

use std::sync::Arc;

use bytes::Bytes;
use minishop_bus::{Headers, Record};
use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{ClientId, CorrelationId, EventId, OrderId};
use minishop_core::order::{CreateOrder, Line};
use minishop_core::order_head::OrderHead;
use minishop_store::{NewEvent, NewOrder, Role};
use minishop_testkit::rows::{event, event_id, order_id, unique};
use serde_json::{Value, json};

use crate::shop::{Shop, now};

/// A created event to be put into the topic. Each new one has its own ids, key and customer.
#[derive(Debug, Clone)]
pub struct Sent {
    pub json: Value,
    pub key: Option<Bytes>,
    pub headers: Headers,
}

/// Creates an event as our API does: 2 × 10.50 = 21, for a new customer.
pub fn created() -> Sent {
    let n = unique();
    let customer = format!("customer-{n}");
    Sent {
        json: json!({
            "eventId": event_id().to_string(),
            "type": "orders.created.v1",
            "occurredAt": "2026-01-31T12:00:00.123Z",
            "correlationId": format!("corr-{n}"),
            "idempotencyKey": format!("key-{n}"),
            "data": {
                "orderId": order_id().to_string(),
                "customerId": customer,
                "items": [{"productId": "p1", "qty": 2, "price": 10.5}],
                "total": 21,
            },
        }),
        key: Some(customer.into()),
        headers: Headers::default(),
    }
}

/// Returns a record with any bytes.
pub fn record(value: Option<&[u8]>) -> Record {
    Record {
        topic: Arc::from("orders.created"),
        partition: 3,
        offset: i64::try_from(unique()).unwrap(),
        key: Some(Bytes::from_static(b"some key")),
        value: value.map(Bytes::copy_from_slice),
        headers: Headers::default(),
        timestamp: now().timestamp_millis(),
    }
}

impl Sent {
    /// Sets a member by its JSON pointer, such as `/data/total`; adds it if absent.
    pub fn with(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match self.json.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[name.parse::<usize>().unwrap()] = value.into(),
            Value::Object(members) => drop(members.insert(name.to_owned(), value.into())),
            other => panic!("{other} has no members"),
        }
        self
    }

    pub fn without(mut self, pointer: &str) -> Self {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        self.json.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
        self
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers = self.headers.with(name, value);
        self
    }

    pub fn keyed(mut self, key: Option<&[u8]>) -> Self {
        self.key = key.map(Bytes::copy_from_slice);
        self
    }

    /// Creates another event of the same customer.
    pub fn same_customer(&self) -> Self {
        created().with("/data/customerId", self.json["data"]["customerId"].clone()).keyed(self.key.as_deref())
    }

    pub fn text(&self, pointer: &str) -> String {
        self.json.pointer(pointer).unwrap().as_str().unwrap().to_owned()
    }

    pub fn order_id(&self) -> OrderId {
        OrderId::parse(&self.text("/data/orderId")).unwrap()
    }

    pub fn event_id(&self) -> EventId {
        EventId::from_text(&self.text("/eventId"))
    }

    /// Returns a record of the event, at a new offset.
    pub fn record(&self) -> Record {
        Record { key: self.key.clone(), headers: self.headers.clone(), ..record(Some(self.json.to_string().as_bytes())) }
    }

    /// Accepts the order as our API does, so that the worker knows it when its event comes.
    pub async fn accepted(self, shop: &Shop, client: &str) -> Self {
        let event = self.header("ce_client", client).header("ce_sequence", "1");
        let order = event.new_order(client);
        let made = shop.store.orders.intake().await.unwrap().accept(&[order]).await.unwrap();
        assert_eq!(made.len(), 1, "the order is new");
        event
    }

    fn new_order(&self, client: &str) -> NewOrder {
        let data = &self.json["data"];
        let line = |item: &Value| Line {
            product_id: item["productId"].as_str().unwrap().to_owned(),
            qty: i32::try_from(item["qty"].as_i64().unwrap()).unwrap(),
            price: item["price"].as_f64().unwrap(),
        };
        let lines = data["items"].as_array().unwrap().iter().map(line).collect();
        let order = CreateOrder::new(self.text("/data/customerId"), lines, None).unwrap();
        NewOrder {
            head: OrderHead {
                order_id: self.order_id(),
                client_id: ClientId(client.to_owned()),
                customer_id: order.customer_id().to_owned(),
                key: IdempotencyKey::parse(&self.text("/idempotencyKey")).unwrap(),
                correlation_id: CorrelationId::parse(&self.text("/correlationId")).unwrap(),
                currency: None,
                total_minor: order.total_minor(),
                created_at: now(),
            },
            fingerprint: Fingerprint::of_create(&order),
            items: serde_json::to_string(order.items()).unwrap(),
            traceparent: None,
            event: NewEvent {
                event_id: self.event_id(),
                payload: Some(self.json.to_string().into()),
                headers: Headers::default().encode(),
                ..event(Role::Api, "c", self.order_id(), 1)
            },
        }
    }
}
