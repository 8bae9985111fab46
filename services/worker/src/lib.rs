//! The consumer service: reads `orders.created`, settles each event once in effect, and announces what became of the order.
//!
//! An event's way: `consume` reads it (poll thread, offsets), `decode` and `upcast` say what it is, `judge` what is to be done,
//! `process` settles it in the one transaction of its batch. What cannot be settled there stands in the lot, from where `parking`
//! gives it to a handler (`handlers`) until it is settled or given up; `redrive` runs what operators begin over what was given up.
//! `endpoint` tells operators when calls pause. `outgoing` writes what is announced.

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

/// Starts the worker's tasks: one that polls (on a thread of its own), one that processes, the parking lot's, and one that runs
/// operations.
pub fn start(ctx: Ctx) -> anyhow::Result<Vec<Task>> {
    let place = HandlerPlace::new(&ctx);
    Ok(start_with(ctx, WorkerShared::new(place, Versions::current())))
}

/// Starts the worker's tasks with a handler and versions of the caller's choice.
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
