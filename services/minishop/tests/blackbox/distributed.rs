//! The real binary as `api` and `worker` processes on real PostgreSQL, Apache Kafka and Redis.

mod checking;
mod commands;
mod cuts;
mod drains;
mod failing;
mod foreign;
mod happy_path;
mod kills;
mod members;
mod metamorphic;
mod outages;
mod pauses;
mod restored;
mod restores;
mod same_key;
mod storm;
mod topic_settings;
mod traces;
mod unreadable;
mod watching;
