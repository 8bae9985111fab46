//! The consumer service: reads `orders.created`, settles each event once in effect, and announces what became of the order.
//!
//! `consume` owns the poll thread and the offsets, `process` the one transaction of a batch, `decode` and `judge` the decisions.

mod consume;
mod decode;
pub mod handlers;
mod housekeeping;
mod judge;
mod metrics;
mod outgoing;
mod process;

use minishop_platform::ctx::{Ctx, Task};

pub use housekeeping::Housekeeper;
pub use metrics::WorkerMetrics;
pub use process::Processor;

/// Starts the worker's tasks: one that polls (on a thread of its own) and one that processes.
pub fn start(ctx: Ctx) -> anyhow::Result<Vec<Task>> {
    let metrics = WorkerMetrics::register(&ctx.metrics);
    let housekeeping = housekeeping::task(&ctx);
    let mut tasks = consume::tasks(ctx, metrics);
    tasks.push(housekeeping);
    Ok(tasks)
}
