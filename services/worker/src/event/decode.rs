//! Decodes a record; nothing is looked up.

mod digest;

use bytes::Bytes;
use minishop_bus::Record;
use minishop_contracts::events::v1::OrderCreated;
use minishop_contracts::events::{Envelope, decode_envelope};
use minishop_contracts::headers::kafka;
use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{ClientId, CorrelationId, EventId, OrderId};
use minishop_core::order::{CreateOrder, Item, Line};
use minishop_core::order_head::OrderHead;
use minishop_core::parking::DeadCode;
use minishop_platform::telemetry::propagation::TraceContext;
use sha2::{Digest, Sha256};

use crate::event::upcast::{Meaning, Versions};
pub use digest::EventDigest;

/// The longest record key that is used as it is; longer ones are replaced by their digest, since PostgreSQL indexes at most 2704
/// bytes.
const LONGEST_KEY: usize = 1024;

/// A decoded record.
#[derive(Debug)]
pub struct Incoming<'r> {
    pub record: &'r Record,
    /// The event's id, or one derived from the record's place and bytes if the record is refused.
    pub event_id: EventId,
    /// Distinguishes it from another event with the same id.
    pub digest: EventDigest,
    /// The key whose events keep their order: the record key, or the customer id where the record has none; the digest of a very
    /// long key.
    pub key: Bytes,
    pub content: Content,
}

/// The content of a record.
#[derive(Debug)]
pub enum Content {
    Created(Box<CreatedEvent>),
    /// A version of the created event that only a newer worker can read.
    Newer {
        /// The type as written.
        event_type: String,
        /// The order id, if the data names one as version 1 does.
        order_id: Option<OrderId>,
    },
    /// Not a valid event of this topic.
    Refused(Refused),
}

/// Why a record is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub code: DeadCode,
    pub message: String,
    /// The type as written, if it could be read.
    pub event_type: Option<String>,
}

impl Refused {
    /// Describes an event whose values the store cannot hold.
    pub fn by_the_store() -> Self {
        Self { code: DeadCode::DataInvalid, message: "the store cannot hold this event".to_owned(), event_type: None }
    }
}

/// A created event with valid data.
#[derive(Debug, Clone)]
pub struct CreatedEvent {
    /// The order. The client is anonymous if the header is absent or invalid; an invalid correlation id is replaced by one that is
    /// derived from the event's id; the time is the producer's.
    pub head: OrderHead,
    /// The lines, in exact money.
    pub items: Vec<Item>,
    pub fingerprint: Fingerprint,
    /// The order version that the event announces; 1 if it names none.
    pub sequence: i32,
    /// The producer's trace; `None` if absent or invalid.
    pub trace: Option<TraceContext>,
    /// The type as written.
    pub event_type: String,
}

impl Incoming<'_> {
    /// Returns the created event, if it is one.
    pub fn created(&self) -> Option<&CreatedEvent> {
        if let Content::Created(created) = &self.content { Some(created) } else { None }
    }
}

/// Decodes a record. Never fails: a record that is not a valid event is [`Content::Refused`].
pub fn decode<'r>(record: &'r Record, versions: &Versions) -> Incoming<'r> {
    let value = record.value.as_deref().unwrap_or_default();
    let (event_id, content, digest, customer) = match decode_envelope(value) {
        Err(error) => {
            let refused = Refused { code: error.code(), message: error.to_string(), event_type: None };
            (id_of_record(record), Content::Refused(refused), EventDigest::of_bytes(value), Bytes::new())
        }
        Ok(envelope) => {
            let id = EventId::from_text(&envelope.event_id);
            let content = content(&envelope, id, record, versions);
            let customer = customer(&content, &envelope);
            let digest = match &content {
                Content::Created(created) => EventDigest::of_created(value, &envelope, created),
                Content::Newer { .. } => EventDigest::of_newer(value, &envelope),
                Content::Refused(_) => EventDigest::of_bytes(value),
            };
            // A refused record must not take the inbox row of the good event whose id it bears.
            (if matches!(content, Content::Refused(_)) { id_of_record(record) } else { id }, content, digest, customer)
        }
    };
    let key = record.key.clone().filter(|key| !key.is_empty()).unwrap_or(customer);
    let key = if key.len() > LONGEST_KEY { Bytes::copy_from_slice(&Sha256::digest(&key)) } else { key };
    Incoming { record, event_id, digest, key, content }
}

/// Derives an id from the record's place and value: the same record, read again, gets the same id.
pub fn id_of_record(record: &Record) -> EventId {
    EventId::of_record(&record.topic, record.partition, record.offset, record.value.as_deref().unwrap_or_default())
}

/// Reads a text from data of an unknown version; a newer one most likely still has it.
fn named(envelope: &Envelope<'_>, member: &str) -> Option<String> {
    let data: serde_json::Value = serde_json::from_str(envelope.data.get()).ok()?;
    Some(data.get(member)?.as_str()?.to_owned())
}

/// Returns the customer id, by which events without a record key are kept in order.
fn customer(content: &Content, envelope: &Envelope<'_>) -> Bytes {
    match content {
        Content::Created(created) => Bytes::copy_from_slice(created.head.customer_id.as_bytes()),
        Content::Newer { .. } => named(envelope, "customerId").unwrap_or_default().into(),
        Content::Refused(_) => Bytes::new(),
    }
}

fn content(envelope: &Envelope<'_>, id: EventId, record: &Record, versions: &Versions) -> Content {
    let event_type = envelope.r#type.clone().into_owned();
    match versions.meaning(&event_type) {
        Meaning::Known(version) => {
            let data = versions.read(envelope, version).map_err(|message| (DeadCode::DataInvalid, message));
            data.and_then(|data| created(envelope, data, id, record)).map_or_else(
                |(code, message)| Content::Refused(Refused { code, message, event_type: Some(event_type) }),
                |c| Content::Created(Box::new(c)),
            )
        }
        Meaning::Newer => {
            let order_id = named(envelope, "orderId").and_then(|id| OrderId::parse(&id));
            Content::Newer { event_type, order_id }
        }
        Meaning::Unknown => Content::Refused(Refused {
            code: DeadCode::TypeUnknown,
            message: format!("the topic does not carry the type `{}`", minishop_contracts::text::shown(&event_type)),
            event_type: Some(event_type),
        }),
    }
}

fn created(
    envelope: &Envelope<'_>,
    data: OrderCreated,
    id: EventId,
    record: &Record,
) -> Result<CreatedEvent, (DeadCode, String)> {
    let invalid = |message: String| (DeadCode::DataInvalid, message);
    let lines = data
        .items
        .into_iter()
        .map(|i| Line { product_id: i.product_id, qty: i.qty, price: i.price.unwrap_or_default() })
        .collect();
    let order = CreateOrder::new(data.customer_id, lines, data.currency.as_deref()).map_err(|violations| {
        let fields: Vec<_> = violations.iter().map(|v| format!("{}: {}", v.field, v.code.as_str())).collect();
        invalid(fields.join(", "))
    })?;
    // The demo sums doubles; the exact sum counts, and float noise is not a reason to refuse.
    if data.total.is_none_or(|total| (total - order.total()).abs() > 0.000_001) {
        return Err(invalid("total: is not the sum of qty times price".to_owned()));
    }
    let order_id = OrderId::parse(&data.order_id).ok_or_else(|| invalid("orderId: INVALID_FORMAT".to_owned()))?;
    let key = IdempotencyKey::of_event(&envelope.idempotency_key)
        .map_err(|_| (DeadCode::EnvelopeInvalid, "idempotencyKey: must have 1 to 255 characters".to_owned()))?;
    let header = |name| record.headers.get(name);
    let (fingerprint, total_minor) = (Fingerprint::of_create(&order), order.total_minor());
    let (customer_id, items) = order.into_parts();
    let head = OrderHead {
        order_id,
        client_id: header(kafka::CE_CLIENT).filter(|c| is_client(c)).map_or_else(ClientId::anonymous, |c| ClientId(c.to_owned())),
        customer_id,
        key,
        correlation_id: CorrelationId::parse(&envelope.correlation_id).unwrap_or_else(|| CorrelationId::of_event(id)),
        currency: data.currency,
        total_minor,
        created_at: envelope.occurred_at.to_utc().unwrap_or_default(),
    };
    Ok(CreatedEvent {
        head,
        items,
        fingerprint,
        sequence: header(kafka::CE_SEQUENCE)
            .and_then(|s| s.parse::<i64>().ok())
            .map_or(1, |n| i32::try_from(n).unwrap_or(i32::MAX)),
        trace: header(kafka::TRACEPARENT).and_then(|parent| TraceContext::parse(parent, header(kafka::TRACESTATE))),
        event_type: envelope.r#type.clone().into_owned(),
    })
}

/// Returns whether a client id can be stored; PostgreSQL's text cannot hold U+0000.
fn is_client(text: &str) -> bool {
    (1..=255).contains(&text.chars().count()) && !text.contains('\0')
}
