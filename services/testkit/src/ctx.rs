//! Contexts of roles that no boot has made.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use minishop_bus::produce::Compression;
use minishop_core::clock::Clock;
use minishop_platform::clock::SystemIds;
use minishop_platform::config::{Config, Flags, Shape};
use minishop_platform::ctx::{Ctx, Metrics, Status};
use minishop_platform::hints::{Changes, Hints};
use minishop_platform::relay::{RelaySettings, RelayTask};
use minishop_store::{Role, Store};
use tokio_util::sync::CancellationToken;

/// Nothing answers there: events stay in the outbox, where tests read them.
pub const NO_BROKERS: &str = "127.0.0.1:1";

/// Returns the default settings of `minishop up` on free ports, below `dir`. The environment is not read.
pub fn config(dir: &Path) -> Config {
    let free = "127.0.0.1:0".parse().unwrap();
    let defaults = Flags::default().check(Shape::Up, Vec::new()).expect("the defaults are valid");
    Config {
        http_addr: free,
        grpc_addr: free,
        admin_addr: free,
        kafka_addr: free,
        data_dir: dir.to_owned(),
        kafka_group: "g".to_owned(),
        drain_wait: Duration::ZERO,
        ..defaults
    }
}

/// Returns the settings of a relay that publishes the events of `roles`.
pub fn relay(owner: &str, roles: &[Role], brokers: &str) -> RelaySettings {
    RelaySettings {
        owner: owner.to_owned(),
        roles: roles.to_vec(),
        brokers: brokers.to_owned(),
        compression: Compression::None,
        hints: Hints::default(),
    }
}

/// Builds the context of a role, and its relay, which does not run yet.
pub fn ctx(config: Config, clock: Arc<dyn Clock>, store: &Store, settings: RelaySettings) -> (Ctx, RelayTask) {
    let (brokers, status, metrics) = (settings.brokers.clone(), Status::default(), Metrics::default());
    let (relay, task) = RelayTask::new(store, settings, status.clone(), &metrics).unwrap();
    let ctx = Ctx {
        config: Arc::new(config),
        clock,
        ids: Arc::new(SystemIds),
        store: store.clone(),
        brokers,
        relay,
        changes: Changes::default(),
        metrics,
        drain: CancellationToken::new(),
        status,
    };
    (ctx, task)
}
