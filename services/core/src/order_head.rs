//! The columns of an order that never change, except its lines: its ids, its owner and its amount.

use crate::clock::Timestamp;
use crate::currency::Currency;
use crate::idempotency::IdempotencyKey;
use crate::ids::{ClientId, CorrelationId, OrderId};
use crate::money;

/// The part of an order that never changes, apart from its lines. Rows of the stores and events share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderHead {
    pub order_id: OrderId,
    /// The caller that created it; with `key` the scope of idempotency.
    pub client_id: ClientId,
    /// The customer, the default record key.
    pub customer_id: String,
    /// The idempotency key of the request that created it.
    pub key: IdempotencyKey,
    pub correlation_id: CorrelationId,
    /// The currency's code; `None` if the caller named none.
    pub currency: Option<String>,
    pub total_minor: i64,
    /// The time of acceptance, also in its `orders.created` event.
    pub created_at: Timestamp,
}

impl OrderHead {
    /// Returns the decimals of every amount.
    pub fn scale(&self) -> u32 {
        Currency::scale_of(self.currency.as_deref())
    }

    /// Returns the total as printed on the wire.
    pub fn total(&self) -> f64 {
        money::to_major(self.total_minor, self.scale())
    }
}
