//! Record batches, valid or deliberately invalid.

use bytes::{BufMut, Bytes};

/// A batch to write; every field may have an invalid value.
#[derive(Debug, Clone)]
pub struct Batch {
    pub values: Vec<Vec<u8>>,
    pub attributes: i16,
    pub producer: i64,
    pub epoch: i16,
    pub sequence: i32,
    pub timestamp: i64,
    /// Added to the correct record count.
    pub count_error: i32,
    /// Added to the correct length.
    pub length_error: i32,
    pub magic: u8,
}

/// A batch of a producer that is not idempotent.
pub fn plain(values: &[&str]) -> Batch {
    Batch {
        values: values.iter().map(|value| value.as_bytes().to_vec()).collect(),
        attributes: 0,
        producer: -1,
        epoch: -1,
        sequence: -1,
        timestamp: 1_700_000_000_000,
        count_error: 0,
        length_error: 0,
        magic: 2,
    }
}

/// A batch of `count` records of `producer` that starts at `sequence`.
pub fn numbered(producer: i64, epoch: i16, sequence: i32, count: usize) -> Batch {
    let values: Vec<String> = (0..count).map(|n| format!("value {n}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    Batch { producer, epoch, sequence, ..plain(&values) }
}

impl Batch {
    pub fn bytes(&self) -> Bytes {
        let count = i32::try_from(self.values.len()).unwrap();
        self.around(count, &self.records())
    }

    /// Encodes the records correctly.
    pub fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        for (delta, value) in (0..).zip(&self.values) {
            record(&mut records, delta, value);
        }
        records
    }

    /// Puts this batch's header around `records`, which it declares to be `count` records.
    pub fn around(&self, count: i32, records: &[u8]) -> Bytes {
        let mut checked = Vec::new();
        checked.put_i16(self.attributes);
        checked.put_i32(count - 1);
        checked.put_i64(self.timestamp);
        checked.put_i64(self.timestamp);
        checked.put_i64(self.producer);
        checked.put_i16(self.epoch);
        checked.put_i32(self.sequence);
        checked.put_i32(count + self.count_error);
        checked.put_slice(records);
        let mut bytes = Vec::new();
        bytes.put_i64(0);
        bytes.put_i32(i32::try_from(checked.len()).unwrap() + 9 + self.length_error);
        bytes.put_i32(-1);
        bytes.put_u8(self.magic);
        bytes.put_u32(crc32c::crc32c(&checked));
        bytes.put_slice(&checked);
        bytes.into()
    }

    /// Returns a batch of exactly `size` bytes.
    pub fn of_size(size: usize) -> Bytes {
        let with = |length: usize| Batch { values: vec![vec![b'x'; length]], ..plain(&[]) }.bytes();
        let mut length = size - with(0).len();
        while with(length).len() > size {
            length -= 1;
        }
        let bytes = with(length);
        assert_eq!(bytes.len(), size, "no record makes exactly this size");
        bytes
    }
}

/// Writes one record without key and headers.
pub fn record(bytes: &mut Vec<u8>, delta: i64, value: &[u8]) {
    let mut record = vec![0];
    varint(&mut record, 0);
    varint(&mut record, delta);
    varint(&mut record, -1);
    varint(&mut record, i64::try_from(value.len()).unwrap());
    record.put_slice(value);
    varint(&mut record, 0);
    varint(bytes, i64::try_from(record.len()).unwrap());
    bytes.put_slice(&record);
}

/// Writes a zigzag varint.
pub fn varint(bytes: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while zigzag >= 0x80 {
        bytes.put_u8(u8::try_from(zigzag & 0x7f).unwrap() | 0x80);
        zigzag >>= 7;
    }
    bytes.put_u8(u8::try_from(zigzag).unwrap());
}

/// Returns base offset, record count and size of every batch in a fetch answer.
pub fn batches(records: &[u8]) -> Vec<(i64, i32, usize)> {
    let mut found = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        let base = i64::from_be_bytes(rest[..8].try_into().unwrap());
        let size = 12 + usize::try_from(i32::from_be_bytes(rest[8..12].try_into().unwrap())).unwrap();
        let count = i32::from_be_bytes(rest[57..61].try_into().unwrap());
        assert_eq!(crc32c::crc32c(&rest[21..size]).to_be_bytes(), rest[17..21], "the checksum came back right");
        found.push((base, count, size));
        rest = &rest[size..];
    }
    found
}
