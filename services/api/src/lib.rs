//! MiniShop's API: REST and gRPC over the same use cases, and the intake that writes orders in batches.
//!
//! From the outside in; no file imports one that stands above it:
//! - `http`, `grpc`: decode, call, encode. `reply` has the status of each refusal, `host` the host names of a listener.
//! - `orders`, `operations`: the use cases, one file each. They share `fields` (checks of messages) and `pages`.
//! - `app`: the dependencies of all use cases.
//! - `intake`, `canceller`, `detached_writes`, `watch_hub`, `status_feed`: what runs in tasks of its own, beside the requests.
//! - `call`, `messages`, `metrics`, `hand_over`, `refusals`, `protocol`: values, conversions and wording.
//!
//! Invariants: an order is answered only after its commit; no commit runs in a request's future; committed events are
//! handed to the relay before the answer.

mod app;
mod call;
mod canceller;
mod detached_writes;
mod fields;
mod grpc;
mod hand_over;
mod host;
mod http;
mod intake;
mod messages;
mod metrics;
mod operations;
mod orders;
mod pages;
mod protocol;
mod refusals;
mod reply;
mod status_feed;
mod watch_hub;

use std::sync::Arc;

use minishop_platform::ctx::{Ctx, Task};
use minishop_platform::serve::{self, Limits};
use tokio_util::sync::CancellationToken;

use app::App;
use canceller::Canceller;
use detached_writes::DetachedWrites;
use hand_over::HandOver;
use intake::{WRITERS, Writer};
use status_feed::StatusFeedTask;
use watch_hub::WatchTask;

/// Binds the listeners and returns the API's tasks: two intake writers, detached writes, order watches, status feed, REST, gRPC.
///
/// The tasks that write end after the servers, once their queues are empty.
pub async fn start(ctx: Ctx) -> anyhow::Result<Vec<Task>> {
    let http = serve::bind("http", ctx.config.http_addr).await?;
    let grpc = serve::bind("grpc", ctx.config.grpc_addr).await?;
    ctx.status.bound("http", http.addr());
    ctx.status.bound("grpc", grpc.addr());

    let hand_over = hand_over::to_commits(ctx.commits());
    let canceller = Canceller::new(Arc::clone(&ctx.store.orders), Arc::clone(&ctx.ids), Arc::clone(&hand_over));
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
        tasks.push(Task::new(name, writer(&app, &hand_over)));
    }
    let rest = http.serve(http::router(Arc::clone(&app)), Limits::default(), ctx.drain.clone());
    tasks.push(Task::new("api.http", keeping(Arc::clone(&open), rest)));
    let (router, health) = grpc::router(&app, ctx.drain.clone())?;
    let calls = grpc_calls(health, grpc.serve(router, Limits::default(), ctx.drain.clone()), ctx.drain.clone());
    tasks.push(Task::new("api.grpc", keeping(open, calls)));
    Ok(tasks)
}

fn writer(app: &App, hand_over: &HandOver) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let orders = Arc::clone(&app.store.orders);
    Writer::new(app.queue.clone(), orders, Arc::clone(&app.ids), Arc::clone(hand_over)).run()
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
