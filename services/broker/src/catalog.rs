//! The topics and partitions that exist, with what is known of each without asking SQLite.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use kafka_protocol::protocol::StrBytes;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{settings::TopicSettings, tail::Tail};

/// One partition: its bounds, its newest batches and who waits for more. Only the writer moves the bounds.
#[derive(Debug)]
pub(crate) struct Partition {
    /// Row id, never used again, so rows of a deleted topic cannot be taken for those of its successor.
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

    /// Offset that the next record gets; everything below it is on disk.
    pub fn next(&self) -> i64 {
        self.next.load(Ordering::Acquire)
    }

    /// Offset of the oldest record kept.
    pub fn start(&self) -> i64 {
        self.start.load(Ordering::Acquire)
    }

    /// Bytes of all batches kept.
    pub fn bytes(&self) -> i64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// True once the topic was deleted.
    pub fn gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Shows committed records to readers and wakes those that wait.
    pub fn grow(&self, next: i64, more_bytes: i64) {
        self.next.store(next, Ordering::Release);
        self.bytes.fetch_add(more_bytes, Ordering::Relaxed);
        self.wake();
    }

    /// Hides the oldest records, which the writer has removed.
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

/// A topic as long as it exists; one made later under the same name has another id.
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

/// The topics that exist. Only the writer adds and removes; everybody reads.
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

    /// All topics, by name.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.read(|known| known.by_name.values().cloned().collect())
    }

    pub fn insert(&self, topic: Arc<Topic>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.by_id.insert(topic.id, Arc::clone(&topic));
        known.by_name.insert(topic.name.to_string(), topic);
    }

    /// Forgets a topic and tells its readers.
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

/// Takes a lock whose holders cannot leave half-done work behind, so a panic elsewhere does not matter.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
