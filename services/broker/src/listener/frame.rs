//! Request frames: a length of four bytes, then that many bytes. Memory is reserved as the bytes arrive, not by the
//! announced length.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, timeout};

use crate::settings::Limits;

/// Frames up to this size do not count against the memory budget.
const SMALL: usize = 64 * 1024;
/// Room reserved for a frame before its bytes arrive; it then doubles with them.
const FIRST_READ: usize = 16 * 1024;
/// API key, version and correlation id: no request is shorter.
const SHORTEST: i32 = 8;

/// Why reading frames ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The client closed between two frames, or reset the connection.
    #[error("the client disconnected")]
    Gone,
    #[error("the client disconnected within a frame")]
    Cut,
    #[error("nothing arrived for {0:?}")]
    Idle(Duration),
    #[error("a frame was not complete after {0:?}")]
    Slow(Duration),
    #[error("a frame length of {0} bytes is out of range")]
    Length(i32),
    #[error("the client speaks {0}, not the Kafka protocol")]
    Foreign(&'static str),
}

/// One request without its length, and its share of the memory budget if it is large.
pub(crate) type Frame = (Bytes, Option<OwnedSemaphorePermit>);

/// Reads frames from one connection.
pub(crate) struct Frames<R> {
    stream: R,
    buffer: BytesMut,
    memory: Arc<Semaphore>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub fn new(stream: R, memory: Arc<Semaphore>) -> Self {
        Self { stream, buffer: BytesMut::new(), memory }
    }

    /// Waits up to `idle` for a frame to begin; returns whether it has.
    pub async fn begun(&mut self, idle: Duration) -> Result<bool, End> {
        if !self.buffer.is_empty() {
            return Ok(true);
        }
        match timeout(idle, self.more()).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(End::Cut)) => Err(End::Gone),
            Ok(Err(end)) => Err(end),
            Err(_) => Ok(false),
        }
    }

    /// Reads the frame that has begun.
    pub async fn next(&mut self, limits: &Limits) -> Result<Frame, End> {
        timeout(limits.frame, self.whole(limits)).await.unwrap_or(Err(End::Slow(limits.frame)))
    }

    async fn whole(&mut self, limits: &Limits) -> Result<Frame, End> {
        while self.buffer.len() < 4 {
            self.more().await?;
        }
        let head = [self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]];
        if let Some(protocol) = foreign(head) {
            return Err(End::Foreign(protocol));
        }
        let announced = i32::from_be_bytes(head);
        let size = usize::try_from(announced).unwrap_or(usize::MAX);
        if announced < SHORTEST || size > limits.frame_bytes {
            return Err(End::Length(announced));
        }
        let memory = self.share(size).await;
        while self.buffer.len() < 4 + size {
            let room = self.buffer.len().max(FIRST_READ).min(4 + size - self.buffer.len());
            self.buffer.reserve(room);
            self.more().await?;
        }
        let mut frame = self.buffer.split_to(4 + size).freeze();
        // The remaining bytes would keep a large frame's memory alive.
        if size > SMALL {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Ok((frame.split_off(4), memory))
    }

    async fn share(&self, size: usize) -> Option<OwnedSemaphorePermit> {
        if size <= SMALL {
            return None;
        }
        let share = u32::try_from(size).unwrap_or(u32::MAX);
        Arc::clone(&self.memory).acquire_many_owned(share).await.ok()
    }

    async fn more(&mut self) -> Result<(), End> {
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(FIRST_READ);
        }
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(End::Cut),
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(End::Gone),
        }
    }
}

/// Names the protocol that starts with these bytes. None of them is a valid frame length.
fn foreign(head: [u8; 4]) -> Option<&'static str> {
    match &head {
        [0x16, 3, ..] => Some("TLS"),
        b"GET " | b"HEAD" | b"POST" | b"PUT " | b"DELE" | b"OPTI" | b"PATC" | b"CONN" | b"TRAC" | b"PRI " => Some("HTTP"),
        _ => None,
    }
}
