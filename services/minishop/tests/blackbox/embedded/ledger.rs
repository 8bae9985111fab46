//! The checker's view of a process on embedded parts.

use std::path::Path;

use minishop_bus::Record;
use minishop_testkit::database::Database;
use minishop_testkit::process::Process;
use minishop_testkit::topics::records;

use crate::support::checker::Ledger;

/// A running server, and its store.
pub struct Embedded<'a> {
    server: &'a Process,
    database: Database,
}

impl<'a> Embedded<'a> {
    /// Reads what `server` stores below `dir`.
    pub fn new(server: &'a Process, dir: &Path) -> Self {
        Self { server, database: Database::of(&dir.join("data/minishop.db")) }
    }
}

impl Ledger for Embedded<'_> {
    fn database(&self) -> &Database {
        &self.database
    }

    fn records(&self, topic: &str) -> Vec<Record> {
        records(self.server.addr("kafka"), topic)
    }
}
