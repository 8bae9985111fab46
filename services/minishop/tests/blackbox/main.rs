//! The real binary: on embedded parts, and as `api` and `worker` processes on real PostgreSQL, Apache Kafka and Redis.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows only the functions marked as tests")]

mod distributed;
mod embedded;
mod support;
