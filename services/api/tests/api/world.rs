//! Where one test starts its APIs.

use std::sync::Arc;

use minishop_core::clock::{Clock, ManualClock};
use minishop_platform::clock::SystemClock;
use minishop_platform::config::Config;
use minishop_store::Role;
use minishop_testkit::ctx::{NO_BROKERS, config, ctx, relay};
use minishop_testkit::database::{Database, Engine};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::Api;

/// A database engine, and the data directory of the APIs.
pub struct World {
    pub engine: Engine,
    pub dir: tempfile::TempDir,
}

/// Runs a test on an engine.
pub async fn on(engine: Engine, test: impl AsyncFnOnce(&World)) {
    if engine.is_here() {
        test(&World { engine, dir: tempfile::tempdir().unwrap() }).await;
    }
}

impl World {
    /// Creates an empty database.
    pub async fn database(&self) -> Database {
        Database::fresh(self.engine).await.expect("it is here")
    }

    /// Starts an API on a store of its own.
    pub async fn api(&self) -> Api {
        self.api_with(|_| {}).await
    }

    /// Starts an API on a store of its own, with other settings.
    pub async fn api_with(&self, change: impl FnOnce(&mut Config)) -> Api {
        self.api_on(&self.database().await, change).await
    }

    /// Starts an API whose clock stands still.
    pub async fn api_at_one_moment(&self) -> Api {
        let (database, clock) = (self.database().await, ManualClock::at(SystemClock.now()));
        start(Arc::new(clock), database, config(self.dir.path())).await
    }

    /// Starts an API on an existing store.
    pub async fn api_on(&self, database: &Database, change: impl FnOnce(&mut Config)) -> Api {
        let mut config = config(self.dir.path());
        change(&mut config);
        start(Arc::new(SystemClock), database.clone(), config).await
    }
}

async fn start(clock: Arc<dyn Clock>, database: Database, config: Config) -> Api {
    let store = database.open(Arc::new(SystemClock), true).await.unwrap();
    let (ctx, relaying) = ctx(config, clock, &store, relay("test", &[Role::Api], NO_BROKERS));
    let (status, drain, metrics) = (ctx.status.clone(), ctx.drain.clone(), ctx.metrics.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // As at boot, the relay outlives the roles; here it ends with the test.
        let _ = relaying.run(CancellationToken::new()).await;
    });
    for task in minishop_api::start(ctx).await.unwrap() {
        tasks.spawn(async move { task.run.await.unwrap() });
    }
    let bound = |name| status.addresses().into_iter().find(|(n, _)| *n == name).unwrap().1;
    Api { http: bound("http"), grpc: bound("grpc"), metrics, store, database, drain, tasks }
}
