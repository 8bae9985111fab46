//! The orders that a batch is judged by.

use std::collections::HashMap;

use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, OrderId};
use minishop_platform::store::KnownOrder;

/// Orders found by id and by (client, key); the first of a kind stays. A batch asks for each of its records.
#[derive(Debug, Default)]
pub(super) struct Known {
    orders: Vec<KnownOrder>,
    by_id: HashMap<OrderId, usize>,
    by_key: HashMap<(ClientId, IdempotencyKey), usize>,
}

impl Known {
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
