//! A queue and a writer over a store that does what the test says.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::clock::{Timestamp, from_millis};
use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{ClientId, CorrelationId, EventId, Ids, OrderId};
use minishop_core::order_head::OrderHead;
use minishop_core::refusal::Code;
use minishop_platform::ctx::Metrics;
use minishop_store::{Cancels, Changed, Intake, KeyRecord, NewEvent, NewOrder, Orders, OutboxRow, Result, StoreError};
use tokio::time::Instant;
use uuid::Uuid;

use crate::hand_over::Committed;
use crate::intake::queue::AcceptOutcome;
use crate::intake::{Queue, Writer};
use crate::metrics::ApiMetrics;

/// What the next statement does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// Writes nothing and reports that.
    Retry,
    /// Writes nothing, since another transaction is in the way.
    Held,
    /// Commits, and the answer is lost.
    LostAnswer,
    /// The disk does not sync.
    NoSync,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) records: HashMap<(ClientId, IdempotencyKey), KeyRecord>,
    pub(super) faults: VecDeque<Fault>,
    /// Orders whose key another transaction holds.
    pub(super) held: Vec<IdempotencyKey>,
    /// Orders that can never be written.
    pub(super) poison: Vec<IdempotencyKey>,
    pub(super) statements: Vec<usize>,
    pub(super) connections: usize,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Scripted(pub(super) Arc<Mutex<Book>>);

#[derive(Debug, Default)]
pub(super) struct Counting(std::sync::atomic::AtomicU64);

impl Ids for Counting {
    fn random(&self) -> [u8; 10] {
        let n = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut bytes = [0; 10];
        bytes[2..].copy_from_slice(&n.to_be_bytes());
        bytes
    }

    fn next(&self, at: Timestamp) -> Uuid {
        OrderId::new(at, self.random()).0
    }
}

fn lost() -> anyhow::Error {
    anyhow::anyhow!("scripted")
}

#[async_trait]
impl Intake for Scripted {
    async fn accept(&mut self, batch: &[NewOrder]) -> Result<HashMap<OrderId, i64>> {
        let mut book = self.0.lock().unwrap();
        book.statements.push(batch.len());
        assert!(batch.is_sorted_by_key(|o| (o.head.client_id.clone(), o.head.key.clone())), "batches are sorted by scope");
        let fault = book.faults.pop_front();
        if fault == Some(Fault::Retry) {
            return Err(StoreError::retry("accept", lost()));
        }
        if fault == Some(Fault::Held) || batch.iter().any(|order| book.held.contains(&order.head.key)) {
            return Err(StoreError::contended("accept", lost()));
        }
        if fault == Some(Fault::NoSync) {
            return Err(StoreError::sync_failed("accept", "scripted".into()));
        }
        if batch.iter().any(|order| book.poison.contains(&order.head.key)) {
            return Err(StoreError::value_refused("accept", lost()));
        }
        let mut made = HashMap::new();
        for order in batch {
            let scope = (order.head.client_id.clone(), order.head.key.clone());
            let place = i64::try_from(book.records.len() + 1).unwrap();
            if let std::collections::hash_map::Entry::Vacant(free) = book.records.entry(scope) {
                let record = KeyRecord {
                    client_id: order.head.client_id.clone(),
                    key: order.head.key.clone(),
                    order_id: order.head.order_id,
                    fingerprint: order.fingerprint,
                    total_minor: order.head.total_minor,
                    currency: order.head.currency.clone(),
                };
                free.insert(record);
                made.insert(order.head.order_id, place);
            }
        }
        match fault {
            Some(Fault::LostAnswer) => Err(StoreError::Unknown { operation: "accept", source: lost() }),
            _ => Ok(made),
        }
    }
}

#[async_trait]
impl Orders for Scripted {
    async fn intake(&self) -> Result<Box<dyn Intake>> {
        self.0.lock().unwrap().connections += 1;
        Ok(Box::new(self.clone()))
    }
    async fn by_keys(&self, keys: &[(ClientId, IdempotencyKey)]) -> Result<Vec<KeyRecord>> {
        let book = self.0.lock().unwrap();
        Ok(keys.iter().filter_map(|key| book.records.get(key).cloned()).collect())
    }
    async fn cancels(&self) -> Result<Box<dyn Cancels>> {
        unreachable!("the intake cancels nothing")
    }
    async fn changed(&self, _: &[(OrderId, i32)]) -> Result<Vec<Changed>> {
        unreachable!("the intake watches nothing")
    }
    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}

pub(super) struct Bench {
    pub(super) store: Scripted,
    pub(super) queue: Queue,
    pub(super) writer: Writer,
    pub(super) handed: Arc<Mutex<Vec<OutboxRow>>>,
    /// The calls to the relay, in order: how many rows, or `None` for `InDoubt`.
    pub(super) told: Arc<Mutex<Vec<Option<usize>>>>,
    pub(super) ids: Arc<Counting>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let ids = Arc::new(Counting::default());
        let queue = Queue::new(ids.clone(), ApiMetrics::register(&Metrics::default()));
        let store = Scripted::default();
        let handed: Arc<Mutex<Vec<OutboxRow>>> = Arc::default();
        let told: Arc<Mutex<Vec<Option<usize>>>> = Arc::default();
        let (takes, hears) = (handed.clone(), told.clone());
        let hand_over = Arc::new(move |committed| match committed {
            Committed::Rows(rows) => {
                hears.lock().unwrap().push(Some(rows.len()));
                takes.lock().unwrap().extend(rows);
            }
            Committed::InDoubt => hears.lock().unwrap().push(None),
        });
        let writer = Writer::new(queue.clone(), Arc::new(store.clone()), ids.clone(), hand_over);
        Self { store, queue, writer, handed, told, ids }
    }

    /// An order under a key; `content` decides its fingerprint.
    pub(super) fn order(&self, key: &str, content: u8) -> NewOrder {
        order_of(&self.ids, key, content)
    }

    pub(super) fn submit(&self, key: &str, content: u8) -> impl Future<Output = AcceptOutcome> + use<> {
        let ticket = self.queue.submit(self.order(key, content), Instant::now() + Duration::from_mins(1));
        async move { ticket?.outcome().await }
    }

    pub(super) fn statements(&self) -> Vec<usize> {
        self.store.0.lock().unwrap().statements.clone()
    }
}

pub(super) fn order_of(ids: &Counting, key: &str, content: u8) -> NewOrder {
    let at = from_millis(1_700_000_000_000);
    let (order_id, event_id) = (OrderId::new(at, ids.random()), EventId::new(at, ids.random()));
    NewOrder {
        head: OrderHead {
            order_id,
            client_id: ClientId::anonymous(),
            customer_id: "c1".into(),
            key: IdempotencyKey::parse(key).unwrap(),
            correlation_id: CorrelationId::parse("corr").unwrap(),
            currency: None,
            total_minor: 2100,
            created_at: at,
        },
        fingerprint: Fingerprint([content; 32]),
        items: "[]".into(),
        traceparent: None,
        event: NewEvent {
            shard: 0,
            event_id,
            topic: "orders.created".into(),
            record_key: Bytes::from_static(b"c1"),
            order_id: Some(order_id),
            order_version: Some(1),
            payload: None,
            headers: Bytes::new(),
            brief: None,
        },
    }
}

pub(super) fn code(outcome: &AcceptOutcome) -> Option<Code> {
    outcome.as_ref().err().map(|refusal| refusal.code)
}
