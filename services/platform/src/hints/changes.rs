//! Hints about changed orders, for their watchers.

use std::sync::{Arc, Mutex};

use minishop_core::ids::OrderId;
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

/// The messages that a subscriber may lag behind before it misses some.
const BEHIND: usize = 1024;
/// The most orders queued for other processes; more are dropped.
const WAITING: usize = 16_384;
/// The most orders in one message to other processes.
const ANNOUNCED_AT_ONCE: usize = 1024;
/// Separates the sender's name from the orders.
const PART: u8 = 0;

/// The changed orders of one message.
pub type ChangedOrders = Arc<[OrderId]>;

/// Announces changed orders, here and in other processes. Cheap to clone. Only a hint: subscribers must also poll.
#[derive(Debug, Clone)]
pub struct Changes {
    here: broadcast::Sender<ChangedOrders>,
    others: Option<Arc<OtherProcesses>>,
}

/// The queue for other processes.
#[derive(Debug, Default)]
struct OtherProcesses {
    waiting: Mutex<Vec<OrderId>>,
    wanted: Notify,
}

impl Default for Changes {
    fn default() -> Self {
        Self { here: broadcast::Sender::new(BEHIND), others: None }
    }
}

impl Changes {
    /// Creates one that also queues orders for other processes.
    pub(super) fn with_others() -> Self {
        Self { others: Some(Arc::default()), ..Self::default() }
    }

    /// Announces orders whose change was just committed. Never blocks or fails.
    pub fn committed(&self, orders: Vec<OrderId>) {
        if orders.is_empty() {
            return;
        }
        if let Some(others) = &self.others {
            let mut waiting = others.waiting.lock().expect("no holder of the orders panics");
            let room = WAITING.saturating_sub(waiting.len());
            waiting.extend(orders.iter().take(room));
            others.wanted.notify_one();
        }
        self.heard(orders);
    }

    /// Notifies the subscribers in this process.
    pub(super) fn heard(&self, orders: Vec<OrderId>) {
        // Fails without subscribers.
        let _ = self.here.send(orders.into());
    }

    /// Subscribes from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<ChangedOrders> {
        self.here.subscribe()
    }

    /// Waits for orders to announce to other processes.
    pub(super) async fn to_announce(&self) -> Vec<OrderId> {
        let Some(others) = &self.others else { return std::future::pending().await };
        loop {
            {
                let mut waiting = others.waiting.lock().expect("no holder of the orders panics");
                if !waiting.is_empty() {
                    let now = ANNOUNCED_AT_ONCE.min(waiting.len());
                    let rest = waiting.split_off(now);
                    return std::mem::replace(&mut waiting, rest);
                }
            }
            others.wanted.notified().await;
        }
    }
}

/// Encodes a message: the sender, then the orders, 16 bytes each.
pub(super) fn written(owner: &str, orders: &[OrderId]) -> Vec<u8> {
    let mut message = Vec::with_capacity(owner.len() + 1 + 16 * orders.len());
    message.extend_from_slice(owner.as_bytes());
    message.push(PART);
    for order in orders {
        message.extend_from_slice(order.0.as_bytes());
    }
    message
}

/// Decodes a message of another process; empty for our own messages and malformed ones.
pub(super) fn read(message: &[u8], owner: &str) -> Vec<OrderId> {
    let Some(at) = message.iter().position(|byte| *byte == PART) else { return Vec::new() };
    let (sender, orders) = (&message[..at], &message[at + 1..]);
    if sender == owner.as_bytes() || orders.len() % 16 != 0 {
        return Vec::new();
    }
    orders.chunks_exact(16).filter_map(|bytes| Uuid::from_slice(bytes).ok()).map(OrderId).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(range: std::ops::Range<u128>) -> Vec<OrderId> {
        range.map(|n| OrderId(Uuid::from_u128(n))).collect()
    }

    #[test]
    fn a_message_is_read_by_others_and_not_by_its_sender() {
        let told = orders(0..3);
        let message = written("one", &told);
        assert_eq!(read(&message, "two"), told);
        assert_eq!(read(&message, "one"), []);
        for broken in [&b""[..], b"one", b"one\0short", &message[..message.len() - 1]] {
            assert_eq!(read(broken, "two"), [], "{broken:?}");
        }
    }

    #[tokio::test]
    async fn what_comes_faster_than_it_can_be_told_is_bounded_and_told_in_parts() {
        let changes = Changes::with_others();
        let mut here = changes.subscribe();
        changes.committed(Vec::new());
        changes.committed(orders(0..20_000));
        assert_eq!(here.recv().await.unwrap().len(), 20_000);
        let (mut told, mut parts) = (Vec::new(), 0);
        while told.len() < WAITING {
            let part = changes.to_announce().await;
            assert!((1..=ANNOUNCED_AT_ONCE).contains(&part.len()));
            told.extend(part);
            parts += 1;
        }
        assert_eq!((told, parts), (orders(0..16_384), 16));
    }
}
