//! Creates an order.

use minishop_contracts::orders::v1::CreateOrderResponse;
use minishop_contracts::orders::v1::order::Status as WireStatus;
use minishop_core::currency::Currency;
use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{EventId, OrderId};
use minishop_core::money;
use minishop_core::order::CreateOrder;
use minishop_core::order_head::OrderHead;
use minishop_core::refusal::Refusal;
use minishop_store::NewOrder;
use tracing::debug;

use crate::app::App;
use crate::call::Call;
use crate::intake::Accepted;
use crate::metrics::AcceptLabel;
use crate::refusals;

/// The answer to a request to create an order.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateReply {
    /// The same for every request with the same key and command.
    pub reply: CreateOrderResponse,
    /// Whether an earlier request made the order.
    pub replayed: bool,
}

/// Refuses a new order while the outbox backlog exceeds `outbox_limit_rows` or `outbox_limit_age`.
pub fn admit(app: &App) -> Result<(), Refusal> {
    let backlog = app.relay.backlog();
    if backlog.depth <= app.config.outbox_limit_rows && backlog.oldest <= app.config.outbox_limit_age {
        return Ok(());
    }
    Err(refusals::outbox_full(refusals::retry_after(app.ids.as_ref())))
}

/// Accepts the order that `decode` reads, and counts the outcome. When this returns `Ok`, the order and its event are on disk.
pub async fn create(
    app: &App,
    call: &Call,
    decode: impl Future<Output = Result<(IdempotencyKey, CreateOrder), Refusal>>,
) -> Result<CreateReply, Refusal> {
    let work = async {
        let (key, command) = decode.await?;
        let accepted = app.queue.submit(new_order(app, call, key, &command), call.deadline)?.outcome().await?;
        debug!(order.id = %accepted.order_id, replayed = accepted.replayed, "the order is on disk");
        Ok(created(&accepted))
    };
    let outcome = call.run(work).await;
    let label = match &outcome {
        Ok(CreateReply { replayed: true, .. }) => AcceptLabel::Replayed,
        Ok(CreateReply { replayed: false, .. }) => AcceptLabel::Created,
        Err(refusal) => AcceptLabel::Refused(refusal.code),
    };
    app.metrics.answered(call, label);
    outcome
}

fn new_order(app: &App, call: &Call, key: IdempotencyKey, command: &CreateOrder) -> NewOrder {
    let created_at = app.clock.now();
    let head = OrderHead {
        order_id: OrderId::draw(&*app.ids, created_at),
        client_id: call.client.clone(),
        customer_id: command.customer_id().to_owned(),
        key,
        correlation_id: call.correlation_id.clone(),
        currency: command.currency().map(|currency| currency.code().to_owned()),
        total_minor: command.total_minor(),
        created_at,
    };
    let event_id = EventId::draw(&*app.ids, created_at);
    NewOrder {
        event: app.created_events.event(&head, event_id, command.items(), Some(&call.trace)),
        head,
        fingerprint: Fingerprint::of_create(command),
        items: serde_json::to_string(command.items()).expect("lines are text and whole numbers"),
        traceparent: Some(call.trace.traceparent().to_owned()),
    }
}

/// Builds the answer from columns that never change, so that a replay equals the first answer byte for byte.
fn created(accepted: &Accepted) -> CreateReply {
    let reply = CreateOrderResponse {
        order_id: accepted.order_id.to_string(),
        status: WireStatus::Created.into(),
        total: Some(money::to_major(accepted.total_minor, Currency::scale_of(accepted.currency.as_deref()))),
    };
    CreateReply { reply, replayed: accepted.replayed }
}
