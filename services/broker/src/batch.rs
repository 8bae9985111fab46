//! The header of a record batch (magic 2), read and patched in place.
//!
//! The checksum covers neither base offset nor leader epoch, so the broker may write both:
//! <https://kafka.apache.org/documentation/#recordbatch>.

pub(crate) mod records;

use kafka_protocol::error::ResponseError;

/// Bytes before the first record.
const HEADER: usize = 61;
/// Bytes that the length field does not count: base offset and the length itself.
const PREFIX: usize = 12;
const MAGIC: usize = 16;
const CHECKSUM: usize = 17;
const CHECKED: usize = 21;

const COMPRESSION: i16 = 0b111;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// Header fields that the log uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Offset of the last record minus that of the first.
    pub last_delta: i32,
    pub max_timestamp: i64,
    /// −1 when the producer is not idempotent.
    pub producer: i64,
    pub epoch: i16,
    pub sequence: i32,
}

/// Checks one partition's share of a produce request, which must be exactly one whole batch of at most `max` bytes.
///
/// [`records::walk`] checks what follows the header.
pub(crate) fn check(bytes: &[u8], max: usize) -> Result<Header, ResponseError> {
    if bytes.len() > max {
        return Err(ResponseError::MessageTooLarge);
    }
    // Older formats keep their magic at the same place but are shorter.
    if bytes.get(MAGIC).is_some_and(|magic| *magic != 2) {
        return Err(ResponseError::InvalidRecord);
    }
    let length = whole_length(bytes).ok_or(ResponseError::CorruptMessage)?;
    if length != bytes.len() {
        let another = bytes.get(length..).is_some_and(|rest| whole_length(rest).is_some_and(|n| n <= rest.len()));
        return Err(if another { ResponseError::InvalidRecord } else { ResponseError::CorruptMessage });
    }
    if !intact(bytes) {
        return Err(ResponseError::CorruptMessage);
    }
    let attributes = i16_at(bytes, 21);
    if attributes & (TRANSACTIONAL | CONTROL) != 0 {
        return Err(ResponseError::InvalidTxnState);
    }
    if attributes & COMPRESSION > 4 {
        return Err(ResponseError::UnsupportedCompressionType);
    }
    let last_delta = i32_at(bytes, 23);
    let count = i32_at(bytes, 57);
    if last_delta < 0 || count.checked_sub(1) != Some(last_delta) {
        return Err(ResponseError::InvalidRecord);
    }
    let header = Header {
        last_delta,
        max_timestamp: i64_at(bytes, 35),
        producer: i64_at(bytes, 43),
        epoch: i16_at(bytes, 51),
        sequence: i32_at(bytes, 53),
    };
    if header.producer >= 0 && (header.epoch < 0 || header.sequence < 0) {
        return Err(ResponseError::InvalidRecord);
    }
    Ok(header)
}

/// Returns whether a batch's checksum is correct.
pub(crate) fn intact(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER && crc32c::crc32c(&bytes[CHECKED..]).to_be_bytes() == bytes[CHECKSUM..CHECKED]
}

/// Writes the base offset, and leader epoch 0, the only one of this broker.
pub(crate) fn place(bytes: &mut [u8], base_offset: i64) {
    bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[12..16].fill(0);
}

/// Returns the length of a whole batch by its own header; `None` if the header is missing or the length impossible.
fn whole_length(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < HEADER {
        return None;
    }
    let length = usize::try_from(i32_at(bytes, 8)).ok()? + PREFIX;
    (length >= HEADER).then_some(length)
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("the slice has four bytes"))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("the slice has eight bytes"))
}
