//! The existing topics and partitions, and their state in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kafka_protocol::protocol::StrBytes;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::settings::TopicSettings;
use crate::tail::Tail;

/// One partition: its bounds, newest batches and waiting fetches. Only the writer moves the bounds.
#[derive(Debug)]
pub(crate) struct Partition {
    /// Row id, never reused, so rows of a deleted topic are not taken for those of its successor.
    pub id: i64,
    pub number: i32,
    next: AtomicI64,
    start: AtomicI64,
    bytes: AtomicI64,
    gone: AtomicBool,
    pub tail: Mutex<Tail>,
    waiters: Mutex<Vec<Arc<Notify>>>,
}

impl Partition {
    pub fn new(id: i64, number: i32, start: i64, next: i64, bytes: i64) -> Self {
        Self {
            id,
            number,
            next: AtomicI64::new(next),
            start: AtomicI64::new(start),
            bytes: AtomicI64::new(bytes),
            gone: AtomicBool::new(false),
            tail: Mutex::default(),
            waiters: Mutex::default(),
        }
    }

    /// Returns the offset of the next record; everything below it is on disk.
    pub fn next(&self) -> i64 {
        self.next.load(Ordering::Acquire)
    }

    /// Returns the offset of the oldest kept record.
    pub fn start(&self) -> i64 {
        self.start.load(Ordering::Acquire)
    }

    /// Returns the bytes of all kept batches.
    pub fn bytes(&self) -> i64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns whether the topic was deleted.
    pub fn gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Makes committed records visible to readers and wakes waiting fetches.
    pub fn grow(&self, next: i64, more_bytes: i64) {
        self.next.store(next, Ordering::Release);
        self.bytes.fetch_add(more_bytes, Ordering::Relaxed);
        self.wake();
    }

    /// Sets the first offset, which hides older records, and the bytes of the kept batches.
    pub fn shrink(&self, start: i64, bytes: i64) {
        self.start.store(start, Ordering::Release);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub fn watch(&self, waiter: &Arc<Notify>) {
        lock(&self.waiters).push(Arc::clone(waiter));
    }

    pub fn unwatch(&self, waiter: &Arc<Notify>) {
        lock(&self.waiters).retain(|w| !Arc::ptr_eq(w, waiter));
    }

    fn wake(&self) {
        for waiter in lock(&self.waiters).iter() {
            waiter.notify_one();
        }
    }
}

/// An existing topic; one created later under the same name has another id.
#[derive(Debug)]
pub(crate) struct Topic {
    pub name: StrBytes,
    pub id: Uuid,
    pub settings: TopicSettings,
    pub partitions: Vec<Arc<Partition>>,
}

impl Topic {
    pub fn partition(&self, number: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(number).ok()?)
    }
}

#[derive(Debug, Default)]
struct Known {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

/// The existing topics. Only the writer adds and removes them.
#[derive(Debug, Default)]
pub(crate) struct Catalog(RwLock<Known>);

impl Catalog {
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.read(|known| known.by_name.get(name).cloned())
    }

    pub fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.read(|known| known.by_id.get(&id).cloned())
    }

    pub fn partition(&self, topic: &str, number: i32) -> Option<Arc<Partition>> {
        self.read(|known| known.by_name.get(topic)?.partition(number).cloned())
    }

    /// Returns all topics, sorted by name.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.read(|known| known.by_name.values().cloned().collect())
    }

    pub fn insert(&self, topic: Arc<Topic>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.by_id.insert(topic.id, Arc::clone(&topic));
        known.by_name.insert(topic.name.to_string(), topic);
    }

    /// Removes a topic and wakes its readers.
    pub fn remove(&self, topic: &Topic) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.by_id.remove(&topic.id);
        known.by_name.remove(topic.name.as_str());
        drop(known);
        for partition in &topic.partitions {
            partition.gone.store(true, Ordering::Release);
            partition.wake();
        }
    }

    fn read<T>(&self, f: impl FnOnce(&Known) -> T) -> T {
        f(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Locks a mutex whose holders leave no half-done work behind, so a panic of one does not matter.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
