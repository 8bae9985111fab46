//! Topic names.

/// Accepted orders.
pub const CREATED: &str = "orders.created";
/// Processed orders.
pub const PROCESSED: &str = "orders.processed";
/// Cancelled orders.
pub const CANCELLED: &str = "orders.cancelled";
/// Orders that were given up.
pub const FAILED: &str = "orders.failed";
/// Records of [`CREATED`] that could not be processed, with their original bytes.
pub const CREATED_DEAD_LETTERS: &str = "orders.created.dlq";

/// Every topic, without the prefix.
pub const ALL: [&str; 5] = [CREATED, PROCESSED, CANCELLED, FAILED, CREATED_DEAD_LETTERS];

/// Puts the installation's prefix, possibly empty, before a topic name.
pub fn prefixed(prefix: &str, topic: &str) -> String {
    format!("{prefix}{topic}")
}
