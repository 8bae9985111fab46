//! A store on a database of its own.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use minishop_core::clock::{Clock, ManualClock, Timestamp};
use minishop_store::error::OpenError;
use minishop_store::{NewOrder, Store};

use crate::database::{Database, Engine};
use crate::rows::{now, outbox};

/// A store, and its database. The clock of SQLite moves only by [`FreshStore::age`].
#[derive(Debug)]
pub struct FreshStore {
    /// The store.
    pub store: Store,
    database: Database,
    clock: Arc<ManualClock>,
}

impl Deref for FreshStore {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

impl FreshStore {
    /// Opens a store on a fresh database; `None` if there is no server and that is permitted.
    pub async fn on(engine: Engine) -> Option<Self> {
        let (database, clock) = (Database::fresh(engine).await?, Arc::new(ManualClock::at(now())));
        let store = database.open(clock.clone(), true).await.expect("a fresh database opens");
        Some(Self { store, database, clock })
    }

    /// Opens the same database again, as another process would.
    pub async fn open_again(&self, migrate: bool) -> Result<Store, OpenError> {
        self.database.open(self.clock.clone(), migrate).await
    }

    /// Returns a second store on the same database: another process with PostgreSQL, the same one with SQLite.
    pub async fn second(&self) -> Store {
        if self.is_distributed() { self.open_again(false).await.expect("it opened before") } else { self.store.clone() }
    }

    /// Lets time pass by the database's clock. On a server, moves the times of outbox rows, leases, operations, audit, outages and
    /// parked events back.
    pub async fn age(&self, by: Duration) {
        if !self.is_distributed() {
            return self.clock.advance(TimeDelta::from_std(by).expect("a short time"));
        }
        let earlier = |column: &&str| format!("{column} = {column} - interval '{} ms'", by.as_millis());
        let tables: [(&str, &[&str]); 7] = [
            ("outbox_event", &["created_at"]),
            ("outbox_shard", &["expires_at"]),
            ("relay_owner", &["expires_at"]),
            ("operation", &["leased_until", "ended_at"]),
            ("audit", &["at"]),
            ("endpoint_outage", &["told_at"]),
            ("parked", &["parked_at", "next_attempt_at", "leased_until"]),
        ];
        let mut connection = self.connect().await;
        for (table, columns) in tables {
            let columns: Vec<String> = columns.iter().map(earlier).collect();
            connection.script(&format!("UPDATE {table} SET {}", columns.join(", "))).await;
        }
    }

    /// Returns the time of the database's clock.
    pub fn clock(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the server's clock is the system's")]
        if self.is_distributed() { chrono::Utc::now() } else { self.clock.now() }
    }

    /// Accepts orders, all of which must be new.
    pub async fn accept(&self, orders: &[NewOrder]) {
        let made = self.store.orders.intake().await.expect("a connection").accept(orders).await.expect("a commit");
        assert_eq!(made.len(), orders.len(), "every order is new");
    }

    /// Reads the whole outbox, published or not.
    pub async fn outbox(&self) -> Vec<minishop_store::OutboxRow> {
        outbox(&self.store).await
    }
}
