//! What all reads share: the deadline, the refusal of a failed read, and page sizes.

use minishop_core::refusal::Refusal;
use prost::Message;
use tokio::time::timeout_at;
use tracing::warn;

use crate::call::Call;
use crate::refusals;

/// Entries per page if the caller sets no size.
const DEFAULT_PAGE: usize = 50;

/// Maximum bytes of a page's entries: gRPC clients take messages of up to 4 MiB by default.
const PAGE_BYTES: usize = 3_500_000;

/// Waits for a read of the store until the call's deadline.
pub async fn read<T>(call: &Call, reading: impl Future<Output = minishop_store::Result<T>>) -> Result<T, Refusal> {
    match timeout_at(call.deadline, reading).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            warn!(error = ?error, "a read failed");
            Err(refusals::store(&error))
        }
        Err(_) => Err(refusals::read_late()),
    }
}

/// Returns the entries that fit into `PAGE_BYTES`, but at least one, so that pages advance.
pub fn fitting<M: Message>(entries: impl IntoIterator<Item = M>) -> Vec<M> {
    let mut bytes = 0_usize;
    let fits = |(n, entry): &(usize, M)| {
        // Each entry also has a tag and a length.
        bytes = bytes.saturating_add(entry.encoded_len() + 8);
        *n == 0 || bytes <= PAGE_BYTES
    };
    entries.into_iter().enumerate().take_while(fits).map(|(_, entry)| entry).collect()
}

/// Converts a validated page size; 0 means the default.
pub fn page_size(wire: i32) -> usize {
    usize::try_from(wire).ok().filter(|size| *size > 0).unwrap_or(DEFAULT_PAGE)
}

#[cfg(test)]
mod tests {
    use minishop_contracts::orders::v1::{Order, OrderItem};

    use super::*;

    fn order(lines: usize) -> Order {
        let line = OrderItem { product_id: "\u{1f600}".repeat(128), qty: 1_000_000, price: Some(0.01) };
        Order { items: vec![line; lines], ..Order::default() }
    }

    #[test]
    fn a_page_ends_before_it_is_larger_than_clients_take() {
        let page = fitting((0..500).map(|_| order(100)));
        assert!((1..500).contains(&page.len()), "{}", page.len());
        let reply = minishop_contracts::orders::v1::ListOrdersResponse { orders: page, next_page_token: "x".repeat(512) };
        assert!((3_000_000..4_194_304).contains(&reply.encoded_len()), "{}", reply.encoded_len());
        assert_eq!(fitting((0..500).map(|_| order(1))).len(), 500, "small ones all fit");
        assert_eq!(fitting([order(10_000), order(1)]).len(), 1, "the first one comes in any case, so that pages go on");
    }
}
