//! A fresh store, and rows for it.

use std::collections::HashMap;
use std::ops::Deref;

use minishop_core::ids::EventId;
use minishop_core::order::Status;
use minishop_store::{
    Acknowledged, AdoptedOrder, InboxEntry, ListQuery, NewOrder, OrderRow, OutboxRow, Renewal, Role, Transition,
};
use minishop_testkit::database::{Engine, Held};
use minishop_testkit::fresh_store::FreshStore;
use minishop_testkit::rows::{brief, client, event, now};
use minishop_testkit::wait::{PATIENCE, eventually};
use tokio::task::AbortHandle;

/// A fresh store, and what many tests ask of it.
pub struct Fixture(FreshStore);

impl Deref for Fixture {
    type Target = FreshStore;

    fn deref(&self) -> &FreshStore {
        &self.0
    }
}

/// Runs a test on a fresh store.
pub async fn on(engine: Engine, test: impl AsyncFnOnce(Fixture)) {
    if let Some(fresh) = FreshStore::on(engine).await {
        test(Fixture(fresh)).await;
    }
}

impl Fixture {
    /// Begins a transaction beside the store's, with one statement; `None` on SQLite, which has one writer.
    pub async fn hold_beside(&self, sql: &str) -> Option<Held> {
        if self.is_distributed() { Some(self.hold(&format!("BEGIN; {sql}")).await) } else { None }
    }

    /// Waits until `count` transactions wait for locks, or until the task has ended without a wait. On SQLite, with its one
    /// writer, a task queues where it cannot be observed, so this returns at once.
    pub async fn until_blocked(&self, count: i64, task: &AbortHandle) {
        if self.is_distributed() {
            let waits = async || task.is_finished() || self.blocked().await >= count;
            eventually(PATIENCE, "the transactions wait for locks", waits).await;
        }
    }

    pub async fn get(&self, order: &NewOrder) -> Option<OrderRow> {
        self.store.reads.order(&order.head.client_id, order.head.order_id).await.expect("an answer")
    }

    /// Reads the rows that wait to be published, by shard and number.
    pub async fn pending(&self) -> Vec<OutboxRow> {
        let stored = self.acknowledged().await;
        let mut rows = self.outbox().await;
        rows.retain(|row| row.number > stored[&row.event.shard]);
        rows
    }

    /// Returns the stored number up to which each shard is published.
    pub async fn acknowledged(&self) -> HashMap<i16, i64> {
        self.rows("SELECT shard, acknowledged FROM outbox_shard").await.into_iter().collect()
    }

    /// Returns what a leader acknowledges after it has published a shard up to a number.
    pub async fn published(&self, owner: &str, shard: i16, number: i64) -> Acknowledged {
        let leadership = self.store.outbox.lead(owner, &Role::ALL, &Renewal::default()).await.expect("an answer");
        let led = leadership.shards.iter().find(|led| led.shard == shard).expect("the only process leads every shard");
        let new = |row: &OutboxRow| row.event.shard == shard && row.number > led.acknowledged && row.number <= number;
        let events = self.outbox().await.into_iter().filter(new).map(|row| row.event.event_id).collect();
        Acknowledged { shard, epoch: led.epoch, low: led.acknowledged, events }
    }

    /// Acknowledges a shard up to a number.
    pub async fn acknowledge(&self, owner: &str, shard: i16, number: i64) -> bool {
        let published = self.published(owner, shard, number).await;
        self.store.outbox.acknowledge(owner, &[published]).await.expect("an answer")
    }
}

pub fn list_of(client_name: &str) -> ListQuery {
    ListQuery { client_id: client(client_name), customer_id: None, status: None, before: None, down_to: None, limit: 100 }
}

pub fn entry(event_id: EventId) -> InboxEntry {
    InboxEntry { event_id, data_sha: [1; 32], order_id: None }
}

pub fn processed(order: &NewOrder) -> Transition {
    Transition {
        order_id: order.head.order_id,
        expected_version: 1,
        to: Status::Processed,
        at: now(),
        cause: order.event.event_id,
        event: brief(event(Role::Worker, &order.head.customer_id, order.head.order_id, 2)),
    }
}

pub fn adopted(order: &NewOrder) -> AdoptedOrder {
    AdoptedOrder {
        head: order.head.clone(),
        fingerprint: order.fingerprint,
        items: order.items.clone(),
        traceparent: None,
        created_event_id: order.event.event_id,
    }
}
