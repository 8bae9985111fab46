//! The use cases of orders, one file each: the business side of a request, for both protocols.
//!
//! A use case takes the `App`, the `Call` and a validated message, and returns a message or a refusal. No SQL, no status codes,
//! no wording of refusals.

mod cancel;
mod create;
mod get;
mod list;
mod timeline;
mod watch;

pub use cancel::cancel;
pub use create::{CreateReply, admit, create};
pub use get::get;
pub use list::list;
pub use timeline::timeline;
pub use watch::{Watch, watch};
