//! The real binary as `api` and `worker` processes on real PostgreSQL, Apache Kafka and Redis.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows only the functions marked as tests")]

#[path = "support/announcing.rs"]
mod announcing;
#[path = "support/by_hand.rs"]
mod by_hand;
#[path = "support/checker.rs"]
mod checker;
#[path = "blackbox_distributed/checking.rs"]
mod checking;
#[path = "blackbox_distributed/commands.rs"]
mod commands;
#[path = "blackbox_distributed/cuts.rs"]
mod cuts;
#[path = "support/dead_letters.rs"]
mod dead_letters;
#[path = "blackbox_distributed/drains.rs"]
mod drains;
#[path = "support/endpoint.rs"]
mod endpoint;
#[path = "support/events.rs"]
mod events;
#[path = "blackbox_distributed/failing.rs"]
mod failing;
#[path = "blackbox_distributed/foreign.rs"]
mod foreign;
#[path = "support/group.rs"]
mod group;
#[path = "blackbox_distributed/happy_path.rs"]
mod happy_path;
#[path = "blackbox_distributed/kills.rs"]
mod kills;
#[path = "support/load.rs"]
mod load;
#[path = "blackbox_distributed/members.rs"]
mod members;
#[path = "blackbox_distributed/metamorphic.rs"]
mod metamorphic;
#[path = "support/metrics.rs"]
mod metrics;
#[path = "blackbox_distributed/outages.rs"]
mod outages;
#[path = "support/outbox.rs"]
mod outbox;
#[path = "support/passing.rs"]
mod passing;
#[path = "blackbox_distributed/pauses.rs"]
mod pauses;
#[path = "support/place.rs"]
mod place;
#[path = "support/process.rs"]
mod process;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/repair.rs"]
mod repair;
#[path = "support/replaying.rs"]
mod replaying;
#[path = "support/rest.rs"]
mod rest;
#[path = "blackbox_distributed/restored.rs"]
mod restored;
#[path = "blackbox_distributed/restores.rs"]
mod restores;
#[path = "blackbox_distributed/same_key.rs"]
mod same_key;
#[path = "support/servers.rs"]
mod servers;
#[path = "support/shop.rs"]
mod shop;
#[path = "blackbox_distributed/storm.rs"]
mod storm;
#[path = "blackbox_distributed/topic_settings.rs"]
mod topic_settings;
#[path = "support/topics.rs"]
mod topics;
#[path = "blackbox_distributed/traces.rs"]
mod traces;
#[path = "blackbox_distributed/unreadable.rs"]
mod unreadable;
#[path = "support/wait.rs"]
mod wait;
#[path = "blackbox_distributed/watching.rs"]
mod watching;
