//! The timeline of an order: what is noted there beside the changes of its status.

use crate::codes::codes;

codes! {
    /// The kind of a note in an order's timeline, with the members of its detail. `class` and `code` are [`crate::parking`]'s, times
    /// are RFC 3339 in UTC.
    NoteKind {
        /// The order came by its event and not by our API.
        Adopted = "adopted",
        /// The order had changed already when its event came: a recorded no-op.
        Ignored = "ignored",
        /// The event waits in the lot. `because`: `order` (behind an earlier event of its key), `handler` (due at once).
        Parked = "parked",
        /// The event waits for a newer worker. `needsType`.
        Held = "held",
        /// Handling failed and is retried. `attempt`, `class`, `message`; `nextAttemptAt` unless `class` is `crash`.
        Attempt = "attempt",
        /// Handling succeeded and the event left the lot. `attempts`, the last one included.
        Released = "released",
        /// The event was given up and is a dead letter. `attempts`, `class`, `code`, `message`.
        Dead = "dead",
        /// The handler succeeded, but the order had been cancelled meanwhile. `attempt`.
        FulfilledAfterCancel = "fulfilled_after_cancel",
        /// An operator's redrive made the dead letter due again. `operation`, `redrives`, this one included.
        Redriven = "redriven",
        /// An operator discarded the dead letter. `operation`, `reason`.
        Discarded = "discarded",
    }
}
