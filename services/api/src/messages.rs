//! Converts rows of the store to messages of the contracts, where several use cases answer with the same message.

use minishop_contracts::json;
use minishop_contracts::ops::v1::operation::Kind as WireKind;
use minishop_contracts::ops::v1::operation_progress::State as WireState;
use minishop_contracts::ops::v1::{Operation, OperationProgress};
use minishop_contracts::orders::v1::order::Status as WireStatus;
use minishop_contracts::orders::v1::{Order, OrderItem};
use minishop_core::currency::Currency;
use minishop_core::money;
use minishop_core::operation::{Kind, State, Tally};
use minishop_core::order::{Item, Status};
use minishop_core::order_head::OrderHead;
use minishop_core::refusal::Refusal;
use minishop_store::OrderRow;

use crate::refusals;

/// Converts an order.
pub fn order(row: OrderRow) -> Result<Order, Refusal> {
    let OrderHead { order_id, customer_id, correlation_id, currency, total_minor, created_at, .. } = row.head;
    let scale = Currency::scale_of(currency.as_deref());
    let items: Vec<Item> = serde_json::from_str(&row.items).map_err(|error| {
        tracing::error!(order.id = %order_id, %error, "cannot read the items of a stored order");
        refusals::internal()
    })?;
    let items = items.into_iter().map(|item| OrderItem {
        product_id: item.product_id,
        qty: item.qty,
        price: Some(money::to_major(item.price_minor, scale)),
    });
    Ok(Order {
        order_id: order_id.to_string(),
        customer_id,
        items: items.collect(),
        total: Some(money::to_major(total_minor, scale)),
        currency,
        status: match row.status {
            Status::Created => WireStatus::Created,
            Status::Processed => WireStatus::Processed,
            Status::Failed => WireStatus::Failed,
            Status::Cancelled => WireStatus::Cancelled,
        }
        .into(),
        version: row.version,
        created_at: Some(created_at.into()),
        correlation_id: correlation_id.as_str().to_owned(),
    })
}

/// Converts an operation.
pub fn operation(row: minishop_store::Operation) -> Operation {
    let filter = row.filter.as_deref().and_then(|text| json::decode_command(text.as_bytes()).ok());
    Operation {
        id: row.id.to_string(),
        kind: match row.kind {
            Kind::Redrive => WireKind::Redrive,
            Kind::Discard => WireKind::Discard,
        }
        .into(),
        state: match row.state {
            State::Running => WireState::Running,
            State::Paused => WireState::Paused,
            State::Stopped => WireState::Stopped,
            State::Done => WireState::Done,
        }
        .into(),
        filter,
        rate: row.rate,
        failure_ratio: if row.kind == Kind::Redrive { row.failure_ratio } else { 0.0 },
        reason: row.requested_by.reason,
        operator: row.requested_by.operator,
        client: row.requested_by.client_id.0,
        correlation_id: row.requested_by.correlation_id.as_str().to_owned(),
        created_at: Some(row.created_at.into()),
        ended_at: row.ended_at.map(Into::into),
        stopped_because: row.stopped_because,
        progress: Some(progress(row.kind, &row.tally)),
    }
}

fn progress(kind: Kind, tally: &Tally) -> OperationProgress {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let step = if kind == Kind::Redrive { i32::try_from(tally.step()).unwrap_or(0) } else { 0 };
    OperationProgress {
        pending: count(tally.pending),
        released: count(tally.released),
        succeeded: count(tally.succeeded),
        failed: count(tally.failed),
        skipped: count(tally.skipped),
        step,
    }
}

/// Converts a number of rows.
pub fn count(rows: i64) -> u32 {
    u32::try_from(rows.max(0)).unwrap_or(u32::MAX)
}
