//! How long an HTTP/1 connection may wait for a request: long before its first byte, short after it.
//!
//! hyper has one limit for both. A short one closes connections that clients keep for later, which then lose a request; a long
//! one lets slow clients hold a connection with half a head.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// When the awaited head began to arrive.
#[derive(Debug)]
struct Heard {
    origin: Instant,
    /// Milliseconds after the origin, plus one; 0 while nothing has arrived.
    began: AtomicU64,
}

impl Heard {
    fn note(&self) {
        if self.began.load(Ordering::Relaxed) == 0 {
            let passed = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
            self.began.store(passed + 1, Ordering::Relaxed);
        }
    }

    fn began(&self) -> Option<Instant> {
        let passed = self.began.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.origin + Duration::from_millis(passed))
    }
}

/// Creates a stream that records when bytes arrive, and the timer that waits accordingly.
///
/// hyper's own limit must be `head`; `idle` is at least as long.
pub(super) fn watch<S>(stream: S, head: Duration, idle: Duration) -> (Watched<S>, HeadTimer) {
    let noted = Arc::new(Heard { origin: Instant::now(), began: AtomicU64::new(0) });
    (Watched { stream, heard: noted.clone() }, HeadTimer { heard: noted, head, idle })
}

/// A stream that records when bytes arrive.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    heard: Arc<Heard>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.heard.note();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// hyper's timer of one connection.
#[derive(Debug, Clone)]
pub(super) struct HeadTimer {
    heard: Arc<Heard>,
    head: Duration,
    idle: Duration,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    /// Called when hyper starts to wait for a head; `deadline` is its own limit.
    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.heard.began.store(0, Ordering::Relaxed);
        let idle_until = deadline + self.idle.saturating_sub(self.head);
        let sleep = Box::pin(tokio::time::sleep_until(idle_until.into()));
        Box::pin(HeadSleep { heard: self.heard.clone(), head: self.head, idle_until, sleep })
    }
}

struct HeadSleep {
    heard: Arc<Heard>,
    head: Duration,
    idle_until: Instant,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.heard.began().map_or(self.idle_until, |began| began + self.head).into();
        if self.sleep.deadline() != due {
            self.sleep.as_mut().reset(due);
        }
        self.sleep.as_mut().poll(cx)
    }
}

impl Sleep for HeadSleep {}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn an_idle_connection_has_longer_than_one_that_began_to_send() {
        let (head, idle) = (Duration::from_millis(20), Duration::from_secs(1));
        let (mut client, server) = tokio::io::duplex(64);
        let (mut watched, timer) = watch(server, head, idle);
        let begun = Instant::now();
        timer.sleep_until(begun + head).await; // sleeps: this is what is tested
        assert!(begun.elapsed() >= idle);
        let begun = Instant::now();
        let sleep = timer.sleep_until(begun + head); // sleeps: this is what is tested
        client.write_all(b"G").await.unwrap();
        watched.read_u8().await.unwrap();
        sleep.await;
        assert!((head..idle).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        drop(timer.sleep_until(Instant::now() + head)); // sleeps: not at all
        assert!(timer.heard.began().is_none(), "the next head has not begun");
    }
}
