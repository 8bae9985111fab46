//! What all reads share: their deadline, the words of their failures, and the size of a page.

use minishop_core::refusal::{Code, Refusal};
use minishop_platform::store;
use tokio::time::timeout_at;
use tracing::warn;

use crate::call::Call;
use crate::intake::store_refusal;

/// Entries of a page when the caller names no number.
const DEFAULT_PAGE: usize = 50;

/// Waits for a read of the store until the call's deadline.
pub async fn read<T>(call: &Call, reading: impl Future<Output = store::Result<T>>) -> Result<T, Refusal> {
    match timeout_at(call.deadline, reading).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            warn!(error = ?error, "a read failed");
            Err(store_refusal(&error))
        }
        Err(_) => Err(Refusal::new(Code::DeadlineExceeded, "The deadline passed before the store answered; ask again.")),
    }
}

/// Reads a page size that was checked: 0 is the default.
pub fn page_size(wire: i32) -> usize {
    usize::try_from(wire).ok().filter(|size| *size > 0).unwrap_or(DEFAULT_PAGE)
}
