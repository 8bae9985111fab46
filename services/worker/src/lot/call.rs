//! One call of the handler.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use minishop_core::parking::ErrorClass;
use tokio::time::Instant;
use tracing::Instrument;

use super::claimed_event::{ClaimedEvent, Ended};
use crate::event::upcast::Versions;
use crate::handlers::{Delivery, Handled, Handler};

/// The pause if a paused handler names none.
const PAUSE: Duration = Duration::from_secs(1);

/// Calls the handler, which may panic or hang; returns the event with the outcome.
pub(super) async fn call(handler: Arc<dyn Handler>, versions: Arc<Versions>, mut claimed: ClaimedEvent) -> ClaimedEvent {
    let Some(delivery) = delivery(&claimed, &versions) else { return claimed };
    let span = tracing::info_span!(
        "worker.order.handle",
        order.id = %delivery.order_id,
        event.id = %delivery.event_id,
        correlation_id = %delivery.correlation_id,
        trace_id = delivery.trace.trace_id(),
        attempt = claimed.row.attempts
    );
    minishop_platform::telemetry::propagation::attach_parent(&span, &delivery.trace);
    let started = Instant::now();
    let handle = AssertUnwindSafe(async { handler.handle(&delivery).await }).catch_unwind();
    let ended = match tokio::time::timeout(handler.longest(), handle).instrument(span).await {
        Ok(Ok(Handled::Done)) => Ended::Done,
        Ok(Ok(Handled::Failed { message, retry_after })) => {
            Ended::Failed { class: ErrorClass::Transient, message: sentence(&message), retry_after }
        }
        Ok(Ok(Handled::Refused { message })) => Ended::Refused { message: sentence(&message) },
        Ok(Ok(Handled::Paused)) => Ended::Paused { again_in: handler.paused().unwrap_or(PAUSE) },
        Ok(Err(panic)) => {
            let message = format!("the handler panicked: {}", sentence(&text_of(panic.as_ref())));
            Ended::Failed { class: ErrorClass::Panic, message, retry_after: None }
        }
        Err(_) => {
            let message = format!("the handler did not finish within {:?}", handler.longest());
            Ended::Failed { class: ErrorClass::Transient, message, retry_after: None }
        }
    };
    claimed.ended = Some((ended, started.elapsed()));
    claimed
}

fn delivery(claimed: &ClaimedEvent, versions: &Versions) -> Option<Delivery> {
    let (event, trace) = (claimed.created()?, claimed.trace.clone()?);
    let value = claimed.record.value.clone().unwrap_or_default();
    Some(Delivery {
        event_id: claimed.event_id,
        order_id: event.head.order_id,
        correlation_id: event.head.correlation_id.clone(),
        idempotency_key: event.head.key.clone(),
        record_key: claimed.row.record_key.clone(),
        envelope: versions.renewed(&value).unwrap_or(value),
        trace,
    })
}

/// Turns a handler's text into one line that every database can hold.
fn sentence(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
