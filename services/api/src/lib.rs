//! MiniShop's API: REST and gRPC over the same use cases, and the intake that writes orders in batches.
//!
//! Invariants: an order is answered only after its commit; no commit runs in a request's future; committed events are
//! handed to the relay before the answer.

mod app;
mod call;
mod cancel;
mod detached_writes;
mod fields;
mod grpc;
mod host;
mod http;
mod intake;
mod metrics;
mod ops;
mod orders;
mod reads;
mod reply;
mod timeline;
mod token;
mod watch;

use std::sync::Arc;

use minishop_platform::ctx::{Ctx, Task};
use minishop_platform::serve::{self, Limits};
use tokio_util::sync::CancellationToken;

use app::App;
use cancel::Canceller;
use detached_writes::DetachedWrites;
use intake::{Committed, HandOver, WRITERS, Writer};
use ops::StatusFeedTask;
use watch::WatchTask;

/// Binds the listeners and returns the API's tasks: two intake writers, detached writes, order watches, status feed, REST, gRPC.
///
/// The tasks that write end after the servers, once their queues are empty.
pub async fn start(ctx: Ctx) -> anyhow::Result<Vec<Task>> {
    let http = serve::bind("http", ctx.config.http_addr).await?;
    let grpc = serve::bind("grpc", ctx.config.grpc_addr).await?;
    ctx.status.bound("http", http.addr());
    ctx.status.bound("grpc", grpc.addr());

    let canceller = Canceller::new(Arc::clone(&ctx.store.orders), Arc::clone(&ctx.ids), hand_over(&ctx));
    let (detached_writes, runner) = DetachedWrites::new(Arc::clone(&ctx.ids));
    let (hub, watcher) = WatchTask::new(&ctx);
    let (status_feed, reader) = StatusFeedTask::new(&ctx);
    let app = Arc::new(App::new(&ctx, detached_writes, canceller, status_feed, hub));
    let open = Arc::new(OpenQueue(Arc::clone(&app)));
    let mut tasks = vec![
        Task::new("api.detached_writes", runner.run()),
        Task::new("api.watch", watcher.run()),
        Task::new("api.status_feed", reader.run()),
    ];
    for name in ["api.intake.1", "api.intake.2"].into_iter().take(WRITERS) {
        tasks.push(Task::new(name, writer(&app, &ctx)));
    }
    let rest = http.serve(http::router(Arc::clone(&app)), Limits::default(), ctx.drain.clone());
    tasks.push(Task::new("api.http", keeping(Arc::clone(&open), rest)));
    let (router, health) = grpc::router(&app, ctx.drain.clone())?;
    let calls = grpc_calls(health, grpc.serve(router, Limits::default(), ctx.drain.clone()), ctx.drain.clone());
    tasks.push(Task::new("api.grpc", keeping(open, calls)));
    Ok(tasks)
}

fn writer(app: &App, ctx: &Ctx) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let orders = Arc::clone(&ctx.store.orders);
    Writer::new(app.queue.clone(), orders, Arc::clone(&ctx.ids), hand_over(ctx)).run()
}

/// Returns the callback that passes commits to the relay.
fn hand_over(ctx: &Ctx) -> HandOver {
    let relay = ctx.relay.clone();
    Arc::new(move |committed| match committed {
        Committed::Rows(rows) => relay.hand_over(rows),
        Committed::InDoubt => relay.verify(),
    })
}

async fn grpc_calls(
    health: grpc::Health,
    server: impl Future<Output = anyhow::Result<()>>,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    health.serving().await;
    let telling = async {
        drain.cancelled().await;
        health.not_serving().await;
    };
    tokio::join!(server, telling).0
}

/// Closes the queues when the last server has ended: their tasks then write what is queued and end.
struct OpenQueue(Arc<App>);

impl Drop for OpenQueue {
    fn drop(&mut self) {
        self.0.queue.close();
        self.0.detached_writes.close();
    }
}

async fn keeping(_open: Arc<OpenQueue>, server: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    server.await
}
