//! Reads the pipeline's status once.

use minishop_contracts::ops::v1::GetStatusResponse;
use minishop_core::refusal::Refusal;

use crate::app::App;
use crate::call::Call;
use crate::status_feed::read_status;

/// Reads the pipeline's status.
pub async fn status(app: &App, call: &Call) -> Result<GetStatusResponse, Refusal> {
    call.read(read_status(&app.store, app.clock.as_ref())).await
}
