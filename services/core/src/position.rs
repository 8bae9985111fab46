//! The position of a consumer in a partition.

/// How far a partition has been settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub topic: String,
    pub partition: i32,
    /// The first offset that is not settled.
    pub next_offset: i64,
}
