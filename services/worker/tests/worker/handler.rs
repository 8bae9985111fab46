//! Handlers that follow a test's script.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::ids::OrderId;
use minishop_testkit::wait::{PATIENCE, eventually};
use minishop_worker::handlers::{Delivery, Handled, Handler, HandlerPlace};
use tokio::sync::Notify;

type Answer = dyn Fn(&Delivery, usize) -> Reaction + Send + Sync;

/// How a handler reacts to a delivery.
pub enum Reaction {
    Say(Handled),
    /// Never returns.
    Hang,
    /// Returned when [`Scripted::open`] is called.
    When(Handled),
}

/// A scripted handler, which records its deliveries.
pub struct Scripted {
    answer: Box<Answer>,
    calls: Mutex<Vec<Delivery>>,
    running: Mutex<HashSet<Bytes>>,
    door: Notify,
    pub pause: Mutex<Option<Duration>>,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

/// Creates a handler from a function of the delivery and of how often its order was delivered before.
pub fn scripted(answer: impl Fn(&Delivery, usize) -> Reaction + Send + Sync + 'static) -> Arc<Scripted> {
    Arc::new(Scripted {
        answer: Box::new(answer),
        calls: Mutex::default(),
        running: Mutex::default(),
        door: Notify::new(),
        pause: Mutex::default(),
    })
}

pub fn failed() -> Reaction {
    Reaction::Say(Handled::Failed { message: "the endpoint answered 503".to_owned(), retry_after: None })
}

pub fn done() -> Reaction {
    Reaction::Say(Handled::Done)
}

impl Scripted {
    pub fn place(self: &Arc<Self>) -> HandlerPlace {
        HandlerPlace::Lot(self.clone())
    }

    /// Returns the delivered orders, in order.
    pub fn calls(&self) -> Vec<OrderId> {
        self.calls.lock().unwrap().iter().map(|delivery| delivery.order_id).collect()
    }

    /// Waits until it was called `count` times.
    pub async fn is_called(&self, count: usize) {
        eventually(PATIENCE, "the handler is called", async || self.calls().len() >= count).await;
    }

    pub fn last(&self) -> Delivery {
        self.calls.lock().unwrap().last().unwrap().clone()
    }

    /// Returns the orders of each key, in the order of their first deliveries.
    pub fn first_calls(&self) -> HashMap<Bytes, Vec<OrderId>> {
        let mut first: HashMap<Bytes, Vec<OrderId>> = HashMap::new();
        for delivery in self.calls.lock().unwrap().iter() {
            let of_key = first.entry(delivery.record_key.clone()).or_default();
            if !of_key.contains(&delivery.order_id) {
                of_key.push(delivery.order_id);
            }
        }
        first
    }

    /// Lets one waiting call return.
    pub fn open(&self) {
        self.door.notify_one();
    }
}

/// Removes a key from the running ones, also when the call is dropped.
struct Running<'s>(&'s Scripted, Bytes);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.lock().unwrap().remove(&self.1);
    }
}

#[async_trait]
impl Handler for Scripted {
    async fn handle(&self, delivery: &Delivery) -> Handled {
        assert!(self.running.lock().unwrap().insert(delivery.record_key.clone()), "one of a key at a time");
        let _running = Running(self, delivery.record_key.clone());
        let before = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(delivery.clone());
            calls.iter().filter(|call| call.order_id == delivery.order_id).count() - 1
        };
        match (self.answer)(delivery, before) {
            Reaction::Say(handled) => {
                tokio::task::yield_now().await;
                handled
            }
            Reaction::Hang => std::future::pending().await,
            Reaction::When(handled) => {
                self.door.notified().await;
                handled
            }
        }
    }

    fn paused(&self) -> Option<Duration> {
        *self.pause.lock().unwrap()
    }

    fn concurrency(&self) -> usize {
        8
    }
}
