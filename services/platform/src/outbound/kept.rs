//! Connections that remember what they received, to distinguish a request lost on a reused connection from one that failed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{Extensions, Uri};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::Service;

/// What one connection has received. Errors carry it in their connection info.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<Received>);

#[derive(Debug, Default)]
struct Received {
    /// Whether an earlier request got a response.
    before: AtomicBool,
    /// Whether bytes of the current response have arrived.
    now: AtomicBool,
}

impl Heard {
    fn said(&self) {
        // Bytes received until now belong to the previous request.
        if self.0.now.swap(false, Ordering::SeqCst) {
            self.0.before.store(true, Ordering::SeqCst);
        }
    }

    fn heard(&self) {
        self.0.now.store(true, Ordering::SeqCst);
    }

    /// Returns whether a reused connection was closed before a byte of this response arrived. That is not a fault of the server:
    /// it closes long-idle connections and cannot know that a request is on its way.
    pub fn nothing(error: &Error) -> bool {
        let mut extensions = Extensions::new();
        let Some(connection) = error.connect_info() else { return false };
        connection.get_extras(&mut extensions);
        let heard = extensions.get::<Self>();
        heard.is_some_and(|Self(received)| received.before.load(Ordering::SeqCst) && !received.now.load(Ordering::SeqCst))
    }
}

/// Opens connections that remember.
#[derive(Debug, Clone)]
pub(super) struct Keeping<C>(pub C);

impl<C> Service<Uri> for Keeping<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
{
    type Response = TokioIo<Kept<C::Response>>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connecting = self.0.call(target);
        Box::pin(async move { Ok(TokioIo::new(Kept { stream: TokioIo::new(connecting.await?), heard: Heard::default() })) })
    }
}

#[derive(Debug)]
pub(super) struct Kept<S> {
    stream: TokioIo<S>,
    heard: Heard,
}

impl<S: Connection> Connection for Kept<S> {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.heard.clone())
    }
}

impl<S: Read + Unpin> AsyncRead for Kept<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.heard.heard();
        }
        read
    }
}

impl<S: Write + Unpin> AsyncWrite for Kept<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.said();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.heard.said();
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }
}
