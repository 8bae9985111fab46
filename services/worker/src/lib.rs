//! The consumer service: reads `orders.created`, processes each event once in effect, and publishes the outcome.
//!
//! The path of an event: `consume` reads it (poll thread, offsets), `decode` and `upcast` interpret it, `judge` decides what to
//! do, `process` settles it in the transaction of its batch. Events that cannot be settled there are parked in the lot, from
//! where `parking` passes them to a handler (`handlers`) until they are settled or dead; `redrive` runs the operations that
//! operators start over dead letters. `endpoint` reports outages of the endpoint to operators. `outgoing` builds the events to
//! publish.

mod consume;
mod decode;
mod endpoint;
pub mod handlers;
mod housekeeping;
mod judge;
mod metrics;
mod outgoing;
mod parking;
mod process;
mod redrive;
mod store_retry;
pub mod upcast;
mod worker_shared;

use minishop_platform::ctx::{Ctx, Task};

use handlers::HandlerPlace;
pub use housekeeping::{Housekeeper, Old};
pub use metrics::WorkerMetrics;
pub use parking::LotTask;
pub use process::Processor;
pub use redrive::{Progress, Redrive};
use upcast::Versions;
pub use worker_shared::{LotBell, WorkerShared};

/// Starts the worker's tasks: poll (on its own thread), process, lot, operations, housekeeping and, if the handler calls one,
/// endpoint.
pub fn start(ctx: Ctx) -> anyhow::Result<Vec<Task>> {
    let place = HandlerPlace::new(&ctx);
    Ok(start_with(ctx, WorkerShared::new(place, Versions::current())))
}

/// Like [`start`], with the given handler and versions.
pub fn start_with(ctx: Ctx, setup: WorkerShared) -> Vec<Task> {
    let metrics = WorkerMetrics::register(&ctx.metrics);
    let endpoint = setup.place.handler().endpoint();
    let endpoint = endpoint.map(|endpoint| Task::new("worker endpoint", endpoint::run(ctx.clone(), endpoint)));
    let lot = LotTask::new(&ctx, metrics.clone(), setup.clone());
    let lot = Task::new("worker lot", lot.run(ctx.clone()));
    let operations = Task::new("worker operations", redrive::run(ctx.clone(), setup.clone()));
    let housekeeping = housekeeping::task(&ctx);
    let mut tasks = consume::tasks(ctx, metrics, setup);
    tasks.extend([lot, operations, housekeeping]);
    tasks.extend(endpoint);
    tasks
}
