//! Pages of lists: where a page begins, how many rows to read for it, and the token of the next one.

mod token;

use std::convert::Infallible;

use minishop_core::refusal::Refusal;
use prost::Message;
use uuid::Uuid;

use crate::call::Call;
use crate::refusals;
use token::List;

/// Entries per page if the caller sets no size.
const DEFAULT_PAGE: usize = 50;

/// Maximum bytes of a page's entries: gRPC clients take messages of up to 4 MiB by default.
const PAGE_BYTES: usize = 3_500_000;

/// A position in a list, as page tokens hold it.
pub trait Place: Copy {
    /// Encodes the position.
    fn to_bytes(self) -> Vec<u8>;
    /// Decodes the position in a token of `list`.
    fn read(list: &List, token: &str) -> Option<Self>;
}

impl Place for i64 {
    fn to_bytes(self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }

    fn read(list: &List, token: &str) -> Option<Self> {
        list.place(token).map(Self::from_be_bytes)
    }
}

impl Place for Uuid {
    fn to_bytes(self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn read(list: &List, token: &str) -> Option<Self> {
        list.place(token).map(Self::from_bytes)
    }
}

/// The requested page of a list.
#[derive(Debug)]
pub struct Page<P> {
    list: List,
    /// The position of the last entry before the page; `None` for the first page.
    pub after: Option<P>,
    /// The most entries of the page.
    pub size: usize,
}

impl<P: Place> Page<P> {
    /// Reads a validated request. `list` is the list's name, the client and every filter, but not the page size.
    pub fn of(call: &Call, list: &[&str], size: i32, token: &str) -> Result<Self, Refusal> {
        let list = List::new(list);
        let after = match token {
            "" => None,
            token => Some(P::read(&list, token).ok_or_else(|| refusals::page_token_invalid(call.protocol))?),
        };
        Ok(Self { list, after, size: page_size(size) })
    }

    /// Returns the rows to read: one more than the page has entries shows that a next page exists.
    pub fn limit(&self) -> i64 {
        limit(self.size)
    }

    /// Cuts rows to the page, or to as many entries as fit in a message. Returns where the next page begins.
    pub fn try_cut<T, M: Message, E>(
        &self,
        mut rows: Vec<T>,
        place: impl Fn(&T) -> P,
        entry: impl Fn(T) -> Result<M, E>,
    ) -> Result<(Vec<M>, Option<P>), E> {
        let mut beyond = cut_to(&mut rows, self.size);
        let places: Vec<P> = rows.iter().map(place).collect();
        let entries = fitting(rows.into_iter().map(entry).collect::<Result<Vec<_>, E>>()?);
        beyond |= entries.len() < places.len();
        let next = places[..entries.len()].last().copied().filter(|_| beyond);
        Ok((entries, next))
    }

    /// Cuts rows to the page, as `try_cut` does. Returns the token of the next page.
    pub fn cut<T, M: Message>(&self, rows: Vec<T>, place: impl Fn(&T) -> P, entry: impl Fn(T) -> M) -> (Vec<M>, String) {
        let Ok((entries, next)) = self.try_cut(rows, place, |row| Ok::<_, Infallible>(entry(row)));
        (entries, self.token(next))
    }

    /// Encodes the token of the page after `place`; empty if there is none.
    pub fn token(&self, place: Option<P>) -> String {
        place.map(|place| self.list.token(&place.to_bytes())).unwrap_or_default()
    }
}

/// Converts a validated page size; 0 means the default.
pub fn page_size(wire: i32) -> usize {
    usize::try_from(wire).ok().filter(|size| *size > 0).unwrap_or(DEFAULT_PAGE)
}

/// Returns the rows to read for `size` entries: one more, for [`cut_to`].
pub fn limit(size: usize) -> i64 {
    i64::try_from(size + 1).unwrap_or(i64::MAX)
}

/// Cuts rows to `size`. Returns whether there were more.
pub fn cut_to<T>(rows: &mut Vec<T>, size: usize) -> bool {
    let beyond = rows.len() > size;
    rows.truncate(size);
    beyond
}

/// Returns the entries that fit into `PAGE_BYTES`, but at least one, so that pages advance.
fn fitting<M: Message>(entries: impl IntoIterator<Item = M>) -> Vec<M> {
    let mut bytes = 0_usize;
    let fits = |(n, entry): &(usize, M)| {
        // Each entry also has a tag and a length.
        bytes = bytes.saturating_add(entry.encoded_len() + 8);
        *n == 0 || bytes <= PAGE_BYTES
    };
    entries.into_iter().enumerate().take_while(fits).map(|(_, entry)| entry).collect()
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
