//! Publishes outages of this worker's endpoint in the store: an API in another process cannot see them otherwise.

use minishop_core::ids::OperationId;
use minishop_platform::ctx::Ctx;
use minishop_store::REPORT_EVERY;

use crate::handlers::Endpoint;

/// Writes each change, repeats it while an outage lasts, and deletes it when the process drains.
pub async fn run(ctx: Ctx, mut endpoint: Endpoint) -> anyhow::Result<()> {
    let (endpoints, owner) = (&ctx.store.endpoints, OperationId::new(ctx.clock.now(), ctx.ids.random()).to_string());
    let (mut reported, mut failing) = (false, false);
    loop {
        let outage = endpoint.outage.borrow_and_update().clone();
        if reported || outage.is_some() {
            match endpoints.report(&owner, &endpoint.name, outage.as_ref()).await {
                Ok(()) => (reported, failing) = (outage.is_some(), false),
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(error = ?error, "cannot report the endpoint's outage to the store; retrying");
                }
                Err(_) => {}
            }
        }
        let lasts = reported || outage.is_some();
        tokio::select! {
            () = ctx.drain.cancelled() => break,
            // The sender lives in the handler, which lives as long as the worker.
            Ok(()) = endpoint.outage.changed() => {}
            () = tokio::time::sleep(REPORT_EVERY), if lasts => {}
        }
    }
    if reported && let Err(error) = endpoints.report(&owner, &endpoint.name, None).await {
        tracing::warn!(error = ?error, "cannot clear the report of the endpoint's outage; it expires in some seconds");
    }
    Ok(())
}
