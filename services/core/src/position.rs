//! How far a consumer has come.

/// How far a partition has been settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that is not settled.
    pub next_offset: i64,
}
