//! Event types and the topics they belong to.

use super::v1::order_settled;
use crate::topics;

/// The type of an accepted order.
pub const CREATED_V1: &str = "orders.created.v1";
/// The type of an accepted order as the original demo wrote it.
pub const CREATED_UNVERSIONED: &str = "orders.created";
/// The type of a processed order.
pub const PROCESSED_V1: &str = "orders.processed.v1";
/// The type of a cancelled order.
pub const CANCELLED_V1: &str = "orders.cancelled.v1";
/// The type of an order that was given up.
pub const FAILED_V1: &str = "orders.failed.v1";

/// What the type of a record on `orders.created` means to this version of the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// An accepted order, version 1, or unversioned as the demo wrote it.
    CreatedV1,
    /// An accepted order in a version newer than this reader: held until a reader knows it.
    NewerVersion(u32),
    /// Not a type of this topic.
    Unknown,
}

impl EventType {
    /// Parses a type. Names are compared exactly; a version is a decimal number from 1 without leading zeros.
    pub fn parse(text: &str) -> Self {
        let Some(rest) = text.strip_prefix(CREATED_UNVERSIONED) else {
            return Self::Unknown;
        };
        if rest.is_empty() {
            return Self::CreatedV1;
        }
        let Some(version) = rest.strip_prefix(".v") else {
            return Self::Unknown;
        };
        let decimal = version.bytes().all(|b| b.is_ascii_digit()) && !version.starts_with('0');
        match version.parse() {
            Ok(1) if decimal => Self::CreatedV1,
            Ok(version) if decimal => Self::NewerVersion(version),
            _ => Self::Unknown,
        }
    }
}

impl order_settled::Status {
    /// Returns the type of the event that announces this status; `None` if unspecified.
    pub const fn event_type(self) -> Option<&'static str> {
        match self {
            Self::Unspecified => None,
            Self::Processed => Some(PROCESSED_V1),
            Self::Failed => Some(FAILED_V1),
            Self::Cancelled => Some(CANCELLED_V1),
        }
    }

    /// Returns the topic, without prefix, of the event that announces this status; `None` if unspecified.
    pub const fn topic(self) -> Option<&'static str> {
        match self {
            Self::Unspecified => None,
            Self::Processed => Some(topics::PROCESSED),
            Self::Failed => Some(topics::FAILED),
            Self::Cancelled => Some(topics::CANCELLED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demos_type_and_version_1_are_read() {
        assert_eq!(EventType::parse("orders.created"), EventType::CreatedV1);
        assert_eq!(EventType::parse("orders.created.v1"), EventType::CreatedV1);
    }

    #[test]
    fn a_newer_version_is_told_from_an_unknown_type() {
        assert_eq!(EventType::parse("orders.created.v2"), EventType::NewerVersion(2));
        assert_eq!(EventType::parse("orders.created.v99"), EventType::NewerVersion(99));
        for unknown in [
            "",
            "orders.created.",
            "orders.created.v",
            "orders.created.v0",
            "orders.created.v01",
            "orders.created.v+2",
            "orders.created.v-2",
            "orders.created.v2 ",
            "orders.created.v2.1",
            "orders.created.vX",
            "orders.created.v99999999999999999999",
            "orders.createdv2",
            "ORDERS.CREATED",
            "orders.cancelled.v1",
            "payments.created.v1",
        ] {
            assert_eq!(EventType::parse(unknown), EventType::Unknown, "{unknown:?}");
        }
    }
}
