//! The sessions of stores on a PostgreSQL server.

use std::time::Duration;

use super::Database;
use crate::wait::becomes;

/// Stores that are connected to the database.
const STORES: &str = "pg_stat_activity WHERE datname = current_database() AND application_name = 'minishop-test'";

impl Database {
    /// Ends the connections of all stores.
    pub async fn cut_stores(&self) {
        self.number(&format!("SELECT count(pg_terminate_backend(pid)) FROM {STORES}")).await;
    }

    /// Waits until no store is connected.
    pub async fn left_alone(&self) {
        becomes("connections of stores", async || self.count(STORES).await, 0).await;
    }

    /// Ends the connections of stores that nobody uses, and waits until none counts as alive because of its latest use: a store
    /// looks at a connection only if it has been idle for ten milliseconds.
    pub async fn lose_idle_connections(&self) {
        self.cut_stores().await;
        let mut tick = tokio::time::interval(Duration::from_millis(15));
        tick.tick().await;
        tick.tick().await;
        self.left_alone().await;
    }

    /// Counts the transactions that wait for locks.
    pub async fn blocked(&self) -> i64 {
        self.count("pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").await
    }
}
