//! Checks the records of a produced batch: one that no client can read would stop its partition.
//!
//! A correct checksum only proves that the bytes are those that the producer wrote. Apache Kafka refuses the same
//! batches: malformed records with error 87, records that do not decompress with error −1. This log answers 87 to both.

use std::io;
use std::io::{BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use lz4_flex::frame::FrameDecoder;

use super::{COMPRESSION, HEADER, i16_at, i32_at};

/// Buffer size for decompressed records.
const PIECE: usize = 8 * 1024;
/// First bytes of an LZ4 frame; older formats, which clients do not read, begin differently.
const LZ4: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// Shortest frame header, and the flags in its fifth byte that announce further fields.
const LZ4_HEADER: usize = 7;
const LZ4_DICTIONARY: u8 = 1;
const LZ4_CONTENT_CHECKSUM: u8 = 1 << 2;
const LZ4_CONTENT_SIZE: u8 = 1 << 3;
const LZ4_BLOCK_CHECKSUM: u8 = 1 << 4;
/// First bytes of snappy in the framing of Java clients; two numbers follow, then blocks with their lengths.
const SNAPPY: [u8; 8] = *b"\x82SNAPPY\0";
const SNAPPY_HEADER: usize = SNAPPY.len() + 8;

/// Limits of a walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Maximum number of decompressed bytes.
    pub inflated: usize,
    /// Largest zstd window, as a power of two; it is held in memory.
    pub window_log: u32,
}

impl Bounds {
    /// Limits of a walk on the async runtime: about a millisecond.
    pub const QUICK: Self = Self { inflated: 1 << 20, window_log: 21 };
    /// Limits for any batch. Clients accept no larger window.
    pub const MOST: Self = Self { inflated: 64 << 20, window_log: 27 };
}

/// Why a walk failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// No client can read these records.
    Unreadable,
    /// The walk would exceed its limits.
    Large,
}

/// Decompresses the records of a batch with a valid header and checks that each has the offset and length it declares.
pub(crate) fn walk(batch: &[u8], bounds: Bounds) -> Result<(), Flaw> {
    let (count, payload) = (i32_at(batch, 57), &batch[HEADER..]);
    let inflate = |reader: &mut dyn Read| records(BufReader::with_capacity(PIECE, reader), count, bounds.inflated);
    match i16_at(batch, 21) & COMPRESSION {
        0 => records(payload, count, usize::MAX),
        1 => {
            let mut reader = GzDecoder::new(payload);
            inflate(&mut reader)?;
            whole(reader.into_inner().is_empty())
        }
        2 => inflate(&mut Snappy::new(payload, bounds.inflated)),
        3 => {
            whole(payload.starts_with(&LZ4) && lz4_ends(payload))?;
            inflate(&mut FrameDecoder::new(payload))
        }
        _ => {
            let mut reader = zstd::stream::read::Decoder::with_buffer(payload).map_err(|_| Flaw::Unreadable)?;
            reader.window_log_max(bounds.window_log).map_err(|_| Flaw::Unreadable)?;
            inflate(&mut reader)
        }
    }
}

fn whole(is: bool) -> Result<(), Flaw> {
    if is { Ok(()) } else { Err(Flaw::Unreadable) }
}

/// Returns whether an LZ4 frame is complete and nothing follows it; the decoder accepts a frame that is cut between two
/// blocks. The format: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>.
fn lz4_ends(frame: &[u8]) -> bool {
    let Some(flags) = frame.get(LZ4.len()).copied() else { return false };
    let extra = |flag: u8, bytes: usize| if flags & flag == 0 { 0 } else { bytes };
    let mut at = LZ4_HEADER + extra(LZ4_CONTENT_SIZE, 8) + extra(LZ4_DICTIONARY, 4);
    while let Some((size, _)) = frame.get(at..).and_then(|rest| rest.split_first_chunk()) {
        let size = u32::from_le_bytes(*size);
        at += 4;
        if size == 0 {
            return at + extra(LZ4_CONTENT_CHECKSUM, 4) == frame.len();
        }
        // The highest bit marks a block that is not compressed.
        at += usize::try_from(size & !(1 << 31)).unwrap_or(usize::MAX / 2) + extra(LZ4_BLOCK_CHECKSUM, 4);
    }
    false
}

fn records(input: impl BufRead, count: i32, most: usize) -> Result<(), Flaw> {
    let mut walk = Walk { input, at: 0, most };
    for delta in 0..count {
        walk.record(delta)?;
    }
    whole(walk.input.fill_buf().map_err(|e| flaw(&e))?.is_empty())
}

/// zstd reports a window that is too large only in the error's text.
fn flaw(error: &io::Error) -> Flaw {
    match error.kind() {
        io::ErrorKind::OutOfMemory => Flaw::Large,
        _ if error.to_string().contains("requires too much memory") => Flaw::Large,
        _ => Flaw::Unreadable,
    }
}

struct Walk<R> {
    input: R,
    /// Bytes consumed.
    at: usize,
    most: usize,
}

impl<R: BufRead> Walk<R> {
    /// Checks one record: <https://kafka.apache.org/documentation/#record>. Its offset delta must be `delta`, because
    /// clients expect no gaps within a batch.
    fn record(&mut self, delta: i32) -> Result<(), Flaw> {
        let length = self.length()?.ok_or(Flaw::Unreadable)?;
        let end = self.at.checked_add(length).ok_or(Flaw::Unreadable)?;
        self.skip(1, end)?;
        self.varint(10)?;
        whole(self.varint(5)? == i64::from(delta))?;
        for _ in ["key", "value"] {
            let size = self.length()?.unwrap_or(0);
            self.skip(size, end)?;
        }
        for _ in 0..self.length()?.ok_or(Flaw::Unreadable)? {
            let name = self.length()?.ok_or(Flaw::Unreadable)?;
            self.skip(name, end)?;
            let value = self.length()?.unwrap_or(0);
            self.skip(value, end)?;
        }
        whole(self.at == end)
    }

    /// Reads a length or count; `None` for −1, which means null.
    fn length(&mut self) -> Result<Option<usize>, Flaw> {
        match self.varint(5)? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Flaw::Unreadable),
        }
    }

    /// Reads a zigzag varint of at most `bytes` bytes.
    fn varint(&mut self, bytes: u32) -> Result<i64, Flaw> {
        let mut value = 0_u64;
        for n in 0..bytes {
            let byte = *self.more()?.first().ok_or(Flaw::Unreadable)?;
            self.consume(1);
            value |= u64::from(byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(Flaw::Unreadable)
    }

    /// Skips `count` bytes, which must not reach beyond `end`.
    fn skip(&mut self, mut count: usize, end: usize) -> Result<(), Flaw> {
        whole(end.checked_sub(self.at).is_some_and(|left| count <= left))?;
        while count > 0 {
            let step = self.more()?.len().min(count);
            self.consume(step);
            count -= step;
        }
        Ok(())
    }

    /// Returns the next bytes, at least one.
    fn more(&mut self) -> Result<&[u8], Flaw> {
        if self.at > self.most {
            return Err(Flaw::Large);
        }
        match self.input.fill_buf() {
            Ok([]) => Err(Flaw::Unreadable),
            Ok(bytes) => Ok(bytes),
            Err(e) => Err(flaw(&e)),
        }
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.at += count;
    }
}

/// Snappy, either one bare block or in the framing of Java clients. A block declares its decompressed size; above the limit
/// it is refused without decompression.
struct Snappy<'a> {
    rest: &'a [u8],
    framed: bool,
    most: usize,
    block: Vec<u8>,
    at: usize,
}

impl<'a> Snappy<'a> {
    fn new(payload: &'a [u8], most: usize) -> Self {
        let framed = payload.starts_with(&SNAPPY) && payload.len() >= SNAPPY_HEADER;
        let rest = if framed { &payload[SNAPPY_HEADER..] } else { payload };
        Self { rest, framed, most, block: Vec::new(), at: 0 }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let mut block = std::mem::take(&mut self.rest);
        if self.framed {
            let (length, rest) = block.split_first_chunk::<4>().ok_or_else(broken)?;
            let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| broken())?;
            (block, self.rest) = rest.split_at_checked(length).ok_or_else(broken)?;
        }
        let size = snap::raw::decompress_len(block).map_err(|_| broken())?;
        if size > self.most {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.block.resize(size, 0);
        self.at = 0;
        let filled = snap::raw::Decoder::new().decompress(block, &mut self.block).map_err(|_| broken())?;
        self.block.truncate(filled);
        Ok(())
    }
}

impl Read for Snappy<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if self.rest.is_empty() {
                return Ok(0);
            }
            self.next_block()?;
        }
        let count = buffer.len().min(self.block.len() - self.at);
        buffer[..count].copy_from_slice(&self.block[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
