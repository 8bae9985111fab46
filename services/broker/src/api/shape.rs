//! Checks a request's lengths before it is decoded.
//!
//! The decoder allocates an array's declared length before it reads an element: a frame of twenty bytes could request
//! gigabytes and end the process. Here every declared length is checked against the remaining bytes.

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

/// One field: its kind and the versions that have it.
struct Field(Kind, i16, i16);

enum Kind {
    Fixed(usize),
    /// Text, nullable or not.
    Text,
    /// Bytes, nullable or not.
    Blob,
    Array(&'static [Field]),
    /// An array of numbers of that many bytes each, which have no tags of their own.
    Numbers(usize),
    /// An array of texts.
    Texts,
}

use Kind::{Array, Blob, Fixed, Numbers, Text, Texts};

/// Maximum number of elements in all arrays of one request; each costs memory when decoded.
const ELEMENTS: usize = 100_000;

const LAST: i16 = i16::MAX;
/// A field of every version.
const fn all(kind: Kind) -> Field {
    Field(kind, 0, LAST)
}
/// A field that `version` introduced.
const fn since(version: i16, kind: Kind) -> Field {
    Field(kind, version, LAST)
}

const TOPIC_LIST: &[Field] = &[all(Text), all(Numbers(4))];
const PRODUCE: &[Field] = &[all(Text), all(Fixed(2 + 4)), all(Array(&[all(Text), all(Array(&[all(Fixed(4)), all(Blob)]))]))];
const FETCH: &[Field] = &[
    Field(Fixed(4), 0, 14),
    all(Fixed(4 + 4 + 4 + 1)),
    since(7, Fixed(4 + 4)),
    all(Array(&[
        Field(Text, 0, 12),
        since(13, Fixed(16)),
        all(Array(&[all(Fixed(4)), since(9, Fixed(4)), all(Fixed(8)), since(12, Fixed(4)), since(5, Fixed(8)), all(Fixed(4))])),
    ])),
    since(7, Array(&[Field(Text, 0, 12), since(13, Fixed(16)), all(Numbers(4))])),
    since(11, Text),
];
const LIST_OFFSETS: &[Field] = &[
    all(Fixed(4)),
    since(2, Fixed(1)),
    all(Array(&[all(Text), all(Array(&[all(Fixed(4)), since(4, Fixed(4)), all(Fixed(8))]))])),
];
const METADATA: &[Field] =
    &[all(Array(&[since(10, Fixed(16)), all(Text)])), since(4, Fixed(1)), Field(Fixed(1), 8, 10), since(8, Fixed(1))];
const OFFSET_COMMIT: &[Field] = &[
    all(Text),
    all(Fixed(4)),
    all(Text),
    since(7, Text),
    Field(Fixed(8), 2, 4),
    all(Array(&[all(Text), all(Array(&[all(Fixed(4 + 8)), since(6, Fixed(4)), all(Text)]))])),
];
const OFFSET_FETCH: &[Field] = &[
    Field(Text, 0, 7),
    Field(Array(TOPIC_LIST), 0, 7),
    since(8, Array(&[all(Text), since(9, Text), since(9, Fixed(4)), all(Array(TOPIC_LIST))])),
    since(7, Fixed(1)),
];
const FIND_COORDINATOR: &[Field] = &[Field(Text, 0, 3), since(1, Fixed(1)), since(4, Texts)];
const JOIN_GROUP: &[Field] = &[
    all(Text),
    all(Fixed(4)),
    since(1, Fixed(4)),
    all(Text),
    since(5, Text),
    all(Text),
    all(Array(&[all(Text), all(Blob)])),
    since(8, Text),
];
const SYNC_GROUP: &[Field] =
    &[all(Text), all(Fixed(4)), all(Text), since(3, Text), since(5, Text), since(5, Text), all(Array(&[all(Text), all(Blob)]))];
const HEARTBEAT: &[Field] = &[all(Text), all(Fixed(4)), all(Text), since(3, Text)];
const LEAVE_GROUP: &[Field] = &[all(Text), Field(Text, 0, 2), since(3, Array(&[all(Text), all(Text), since(5, Text)]))];
const DESCRIBE_GROUPS: &[Field] = &[all(Texts), since(3, Fixed(1))];
const LIST_GROUPS: &[Field] = &[since(4, Texts), since(5, Texts)];
const DELETE_GROUPS: &[Field] = &[all(Texts)];
const OFFSET_DELETE: &[Field] = &[all(Text), all(Array(&[all(Text), all(Array(&[all(Fixed(4))]))]))];
const API_VERSIONS: &[Field] = &[since(3, Text), since(3, Text)];
const CREATE_TOPICS: &[Field] = &[
    all(Array(&[
        all(Text),
        all(Fixed(4 + 2)),
        all(Array(&[all(Fixed(4)), all(Numbers(4))])),
        all(Array(&[all(Text), all(Text)])),
    ])),
    all(Fixed(4 + 1)),
];
const DELETE_TOPICS: &[Field] = &[since(6, Array(&[all(Text), all(Fixed(16))])), Field(Texts, 0, 5), all(Fixed(4))];
const DELETE_RECORDS: &[Field] = &[all(Array(&[all(Text), all(Array(&[all(Fixed(4 + 8))]))])), all(Fixed(4))];
const INIT_PRODUCER_ID: &[Field] = &[all(Text), all(Fixed(4)), since(3, Fixed(8 + 2))];
const DESCRIBE_CONFIGS: &[Field] = &[all(Array(&[all(Fixed(1)), all(Text), all(Texts)])), all(Fixed(1)), since(3, Fixed(1))];
const DESCRIBE_CLUSTER: &[Field] = &[all(Fixed(1)), since(1, Fixed(1))];

/// Returns the fields of a request and its first version with compact lengths and tags.
fn shape(api: ApiKey) -> Option<(&'static [Field], i16)> {
    Some(match api {
        ApiKey::Produce => (PRODUCE, 9),
        ApiKey::Fetch => (FETCH, 12),
        ApiKey::ListOffsets => (LIST_OFFSETS, 6),
        ApiKey::Metadata => (METADATA, 9),
        ApiKey::OffsetCommit => (OFFSET_COMMIT, 8),
        ApiKey::OffsetFetch => (OFFSET_FETCH, 6),
        ApiKey::FindCoordinator => (FIND_COORDINATOR, 3),
        ApiKey::JoinGroup => (JOIN_GROUP, 6),
        ApiKey::SyncGroup => (SYNC_GROUP, 4),
        ApiKey::Heartbeat => (HEARTBEAT, 4),
        ApiKey::LeaveGroup => (LEAVE_GROUP, 4),
        ApiKey::DescribeGroups => (DESCRIBE_GROUPS, 5),
        ApiKey::ListGroups => (LIST_GROUPS, 3),
        ApiKey::DeleteGroups => (DELETE_GROUPS, 2),
        ApiKey::OffsetDelete => (OFFSET_DELETE, LAST),
        ApiKey::ApiVersions => (API_VERSIONS, 3),
        ApiKey::CreateTopics => (CREATE_TOPICS, 5),
        ApiKey::DeleteTopics => (DELETE_TOPICS, 4),
        ApiKey::DeleteRecords => (DELETE_RECORDS, 2),
        ApiKey::InitProducerId => (INIT_PRODUCER_ID, 2),
        ApiKey::DescribeConfigs => (DESCRIBE_CONFIGS, 4),
        ApiKey::DescribeCluster => (DESCRIBE_CLUSTER, 0),
        _ => return None,
    })
}

/// First bytes of librdkafka's request for all topics (up to 2.12.1, versions 9 and above): it reserves four bytes for the
/// topic count and leaves them at zero for a null list, which in compact form is one byte.
const KEPT_COUNT: [u8; 4] = [0; 4];

/// Returns the part of a valid body that is to be decoded: all of it, except for the surplus bytes in librdkafka's request
/// for all topics. Kafka itself ignores bytes at the end of a request.
pub(super) fn fitting(api: ApiKey, version: i16, body: Bytes) -> Result<Bytes, ()> {
    let fits = check(api, version, &body);
    let kept = api == ApiKey::Metadata && version >= 9 && body.starts_with(&KEPT_COUNT);
    if fits.is_ok() || !kept {
        return fits.map(|()| body);
    }
    let body = body.slice(KEPT_COUNT.len() - 1..);
    check(api, version, &body).map(|()| body)
}

/// Walks the body of a request; fails if a length or count exceeds the remaining bytes, or if bytes are left over.
fn check(api: ApiKey, version: i16, body: &[u8]) -> Result<(), ()> {
    let (fields, flexible) = shape(api).ok_or(())?;
    let mut walk = Walk { rest: body, version, flexible: version >= flexible, elements: 0 };
    walk.fields(fields).ok_or(())?;
    if walk.rest.is_empty() { Ok(()) } else { Err(()) }
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &[Field]) -> Option<()> {
        for Field(kind, from, to) in fields {
            if (*from..=*to).contains(&self.version) {
                self.field(kind)?;
            }
        }
        if self.flexible { self.tags() } else { Some(()) }
    }

    fn field(&mut self, kind: &Kind) -> Option<()> {
        match kind {
            Fixed(size) => self.skip(*size),
            Text => {
                let length = self.length(2)?;
                self.skip(length)
            }
            Blob => {
                let length = self.length(4)?;
                self.skip(length)
            }
            Array(fields) => {
                for _ in 0..self.count()? {
                    self.fields(fields)?;
                }
                Some(())
            }
            Numbers(size) => {
                let count = self.count()?;
                self.skip(count.checked_mul(*size)?)
            }
            Texts => {
                for _ in 0..self.count()? {
                    self.field(&Text)?;
                }
                Some(())
            }
        }
    }

    /// Reads an array's length and checks it against the remaining bytes: every element takes at least one.
    fn count(&mut self) -> Option<usize> {
        let count = self.length(4)?;
        self.elements += count.min(self.rest.len() + 1);
        (count <= self.rest.len() && self.elements <= ELEMENTS).then_some(count)
    }

    /// Reads a length: compact, or a number of `size` bytes; null counts as 0.
    fn length(&mut self, size: usize) -> Option<usize> {
        if self.flexible {
            return Some(self.varint()?.saturating_sub(1));
        }
        let (head, rest) = self.rest.split_at_checked(size)?;
        self.rest = rest;
        let length = match *head {
            [a, b] => i32::from(i16::from_be_bytes([a, b])),
            [a, b, c, d] => i32::from_be_bytes([a, b, c, d]),
            _ => return None,
        };
        if length == -1 { Some(0) } else { usize::try_from(length).ok() }
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.skip(length)?;
        }
        Some(())
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return usize::try_from(value).ok();
            }
        }
        None
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.rest = self.rest.get(count..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests;
