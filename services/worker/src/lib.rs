//! The consumer service: reads `orders.created`, processes each event once in effect, and publishes the outcome.
//!
//! The path of an event: `stream` reads it and settles it in the transaction of its batch; `event` says what it means and what
//! follows from it. Events that cannot be settled there are parked in the lot, from where `lot` passes them to a handler
//! (`handlers`) until they are settled or dead. `operations` runs the redrives and discards that operators start over dead letters,
//! `endpoint` reports outages of the endpoint to them, `housekeeping` deletes old rows.

mod commit;
mod endpoint;
mod event;
pub mod handlers;
mod housekeeping;
mod lot;
mod metrics;
mod operations;
mod store_retry;
mod stream;
mod worker_shared;

use minishop_platform::ctx::{Ctx, Task};

pub use event::upcast;
use handlers::HandlerPlace;
pub use housekeeping::{Housekeeper, Old};
pub use lot::LotTask;
pub use metrics::WorkerMetrics;
pub use operations::{OperationsTask, Progress};
pub use stream::Processor;
use upcast::Versions;
pub use worker_shared::{LotWaker, WorkerShared};

/// Starts the worker's tasks: poll (on its own thread), process, lot, operations, housekeeping and, if the handler calls one,
/// endpoint.
pub fn start(ctx: Ctx) -> anyhow::Result<Vec<Task>> {
    let place = HandlerPlace::new(&ctx);
    Ok(start_with(ctx, WorkerShared::new(place, Versions::current())))
}

/// Like [`start`], with the given handler and versions.
pub fn start_with(ctx: Ctx, worker: WorkerShared) -> Vec<Task> {
    let metrics = WorkerMetrics::register(&ctx.metrics);
    let endpoint = worker.place.handler().endpoint();
    let endpoint = endpoint.map(|endpoint| Task::new("worker.endpoint", endpoint::run(ctx.clone(), endpoint)));
    let lot = LotTask::new(&ctx, metrics.clone(), worker.clone());
    let lot = Task::new("worker.lot", lot.run(ctx.clone()));
    let operations = Task::new("worker.operations", operations::run(ctx.clone(), worker.clone()));
    let housekeeping = housekeeping::task(&ctx);
    let mut tasks = stream::tasks(ctx, metrics, worker);
    tasks.extend([lot, operations, housekeeping]);
    tasks.extend(endpoint);
    tasks
}
