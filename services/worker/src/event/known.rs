//! The orders against which events are judged: as the store knows them, or as they are adopted.

use std::collections::{HashMap, HashSet};

use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, EventId, OrderId};
use minishop_core::order::Status;
use minishop_store::{AdoptedOrder, ConsumerTx, KnownOrder, StoreError};

use crate::event::decode::CreatedEvent;

/// Orders by id and by (client, key); the first of each stays. Indexed, since a batch looks up each of its records.
#[derive(Debug, Default)]
pub(crate) struct Known {
    orders: Vec<KnownOrder>,
    by_id: HashMap<OrderId, usize>,
    by_key: HashMap<(ClientId, IdempotencyKey), usize>,
}

impl Known {
    /// Reads the orders that may concern `events`: those with their order ids, and those that used their keys; also those in
    /// `named`.
    pub async fn read(tx: &mut dyn ConsumerTx, events: Vec<&CreatedEvent>, named: Vec<OrderId>) -> Result<Self, StoreError> {
        let ids: Vec<OrderId> = events.iter().map(|event| event.head.order_id).chain(named).collect();
        if ids.is_empty() {
            return Ok(Self::default());
        }
        let mut known = tx.orders(&ids, &[]).await?;
        let found: HashSet<OrderId> = known.iter().map(|order| order.order_id).collect();
        let others = events.iter().filter(|event| !found.contains(&event.head.order_id));
        let keys: Vec<(ClientId, IdempotencyKey)> =
            others.map(|event| (event.head.client_id.clone(), event.head.key.clone())).collect();
        if !keys.is_empty() {
            known.extend(tx.orders(&[], &keys).await?);
        }
        Ok(known.into_iter().collect())
    }

    pub fn add(&mut self, order: KnownOrder) {
        let place = self.orders.len();
        self.by_id.entry(order.order_id).or_insert(place);
        self.by_key.entry((order.client_id.clone(), order.key.clone())).or_insert(place);
        self.orders.push(order);
    }

    pub fn by_id(&self, id: OrderId) -> Option<&KnownOrder> {
        self.by_id.get(&id).map(|place| &self.orders[*place])
    }

    pub fn by_key(&self, client: &ClientId, key: &IdempotencyKey) -> Option<&KnownOrder> {
        self.by_key.get(&(client.clone(), key.clone())).map(|place| &self.orders[*place])
    }
}

impl FromIterator<KnownOrder> for Known {
    fn from_iter<T: IntoIterator<Item = KnownOrder>>(orders: T) -> Self {
        let mut known = Self::default();
        orders.into_iter().for_each(|order| known.add(order));
        known
    }
}

/// Builds the row of an order that the event `id` announces and the store does not have.
pub(crate) fn adopted(id: EventId, event: &CreatedEvent) -> AdoptedOrder {
    AdoptedOrder {
        head: event.head.clone(),
        fingerprint: event.fingerprint,
        items: serde_json::to_string(&event.items).expect("lines are plain values"),
        traceparent: event.trace.as_ref().map(|trace| trace.traceparent().to_owned()),
        created_event_id: id,
    }
}

/// Converts an adopted order into the known order that it will be.
pub(crate) fn known_of(order: &AdoptedOrder) -> KnownOrder {
    KnownOrder {
        order_id: order.head.order_id,
        client_id: order.head.client_id.clone(),
        key: order.head.key.clone(),
        fingerprint: order.fingerprint,
        status: Status::Created,
        version: 1,
        created_event_id: order.created_event_id,
    }
}
