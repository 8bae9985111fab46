//! Writes cancellations to the store, with retries.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minishop_core::backoff::Backoff;
use minishop_core::ids::Ids;
use minishop_core::refusal::Refusal;
use minishop_store::{Cancels, Orders, OutboxRow, StoreError, Transition};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::hand_over::{Committed, HandOver};
use crate::refusals::{self, Doubt};

/// Attempts before a cancel is refused that certainly wrote nothing. The first may fail on a connection that was closed meanwhile.
const TRIES: u32 = 3;
/// How long before its deadline a request is answered: at the deadline it would only get `DEADLINE_EXCEEDED`.
const MARGIN: Duration = Duration::from_millis(20);
/// A request to cancel an order.
pub struct CancelRequest {
    pub change: Transition,
    /// A JSON object for the timeline.
    pub detail: String,
    pub deadline: Instant,
}

/// Cancels orders. Opens connections on demand and keeps them.
pub struct Canceller {
    orders: Arc<dyn Orders>,
    ids: Arc<dyn Ids>,
    hand_over: HandOver,
    /// Idle connections.
    idle: Mutex<Vec<Box<dyn Cancels>>>,
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

impl Canceller {
    /// Creates a canceller without connections.
    pub fn new(orders: Arc<dyn Orders>, ids: Arc<dyn Ids>, hand_over: HandOver) -> Self {
        Self { orders, ids, hand_over, idle: Mutex::default() }
    }

    /// Retries until the outcome is known or the request must be answered. Returns whether this request changed the order.
    pub async fn cancel(&self, request: &CancelRequest) -> anyhow::Result<Result<bool, Refusal>> {
        let (mut tries, mut doubt) = (0, false);
        let until = request.deadline - MARGIN;
        loop {
            if Instant::now() >= until {
                return Ok(Err(if doubt { refusals::outcome_unknown(Doubt::Cancel) } else { refusals::cancel_unavailable() }));
            }
            match self.try_once(request).await {
                Ok(changed) => return Ok(Ok(changed)),
                Err(source) if source.is_sync_failure() => return Err(source.into()),
                Err(source @ StoreError::Fail { .. }) => {
                    error!(order.id = %request.change.order_id, error = ?source, "the store refused to cancel an order");
                    return Ok(Err(refusals::cancel_internal()));
                }
                Err(source) => {
                    tries += 1;
                    doubt |= matches!(source, StoreError::Unknown { .. });
                    (self.hand_over)(Committed::InDoubt);
                    if !doubt && !source.is_contended() && tries >= TRIES {
                        warn!(order.id = %request.change.order_id, error = ?source, "cannot cancel an order; refusing it");
                        return Ok(Err(refusals::cancel_unavailable()));
                    }
                    let pause = Backoff::INFRASTRUCTURE.wait(tries.min(4), self.ids.jitter());
                    tokio::time::sleep_until(until.min(Instant::now() + pause)).await;
                }
            }
        }
    }

    async fn try_once(&self, request: &CancelRequest) -> Result<bool, StoreError> {
        let idle = self.idle.lock().expect("no holder of the connections panics").pop();
        let mut connection = match idle {
            Some(connection) => connection,
            // A failed connect has changed no order.
            None => self.orders.cancels().await?,
        };
        let place = connection.cancel(&request.change, &request.detail).await?;
        self.idle.lock().expect("no holder of the connections panics").push(connection);
        if let Some(number) = place {
            (self.hand_over)(Committed::Rows(vec![OutboxRow::new(number, request.change.event.clone())]));
        }
        Ok(place.is_some())
    }
}
