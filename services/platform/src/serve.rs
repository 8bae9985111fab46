//! The accept loop of REST, gRPC and admin, so that every listener has the same limits.

mod idle;
mod patience;

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::{CONNECTION, HOST};
use http::uri::Authority;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// The first bytes of every HTTP/2 connection (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
/// The most bytes and fields in the head of a request.
const HEAD_BYTES: usize = 16 * 1024;
const HEAD_FIELDS: usize = 100;
/// Bytes buffered for a stream whose peer does not read; the library's default is 400 KB.
const STREAM_BYTES: usize = 64 * 1024;

/// The limits of one listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Concurrent connections; further ones are closed.
    pub connections: usize,
    /// The timeout for the first bytes of a connection.
    pub first_byte: Duration,
    /// The timeout for the header block of a request (HTTP/1).
    pub headers: Duration,
    /// How long a connection may wait for its next request (HTTP/1); longer than clients and load balancers keep theirs.
    pub idle: Duration,
    /// How long a peer may read nothing that is written to it, before it is cut off.
    pub stuck: Duration,
    /// How long open requests may run after the drain began, before they are cut.
    pub drain: Duration,
    /// The age at which a client is asked to open a new connection, so that load spreads again.
    pub age: Duration,
    /// How long the requests of such a connection may still run; longer than any request's deadline.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            first_byte: Duration::from_secs(10),
            headers: Duration::from_secs(10),
            // Load balancers keep theirs for a minute by default, and must close first.
            idle: Duration::from_secs(75),
            stuck: Duration::from_mins(1),
            drain: Duration::from_secs(10),
            age: Duration::from_mins(30),
            grace: Duration::from_secs(70),
        }
    }
}

/// A bound listener that does not serve yet.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    addr: SocketAddr,
}

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("error[BIND_FAILED] {name}: cannot listen on {addr}: {source}; free the address or choose another (port 0 takes any)")]
pub struct BindError {
    name: &'static str,
    addr: SocketAddr,
    source: io::Error,
}

/// Binds an address; port 0 takes a free one.
pub async fn bind(name: &'static str, addr: SocketAddr) -> Result<Listener, BindError> {
    let wrap = |source| BindError { name, addr, source };
    let tcp = TcpListener::bind(addr).await.map_err(wrap)?;
    let addr = tcp.local_addr().map_err(wrap)?;
    Ok(Listener { tcp, addr })
}

impl Listener {
    /// Returns the bound address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves HTTP/1.1 and HTTP/2 (distinguished by the first bytes) until `drain` is cancelled, then finishes what is open.
    pub async fn serve(self, router: Router, limits: Limits, drain: CancellationToken) -> anyhow::Result<()> {
        let permits = Arc::new(Semaphore::new(limits.connections));
        let mut open = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = drain.cancelled() => break,
                accepted = self.tcp.accept() => accepted,
                Some(_) = open.join_next(), if !open.is_empty() => continue,
            };
            match (accepted, permits.clone().try_acquire_owned()) {
                (Ok((stream, _)), Ok(permit)) => {
                    open.spawn(connection(stream, permit, router.clone(), limits, drain.clone()));
                }
                (Ok(_), Err(_)) => tracing::debug!(listener.addr = %self.addr, "closed a connection above the limit"),
                (Err(error), _) => {
                    // Usually out of file descriptors: without a pause this loop would spin.
                    tracing::warn!(%error, listener.addr = %self.addr, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        // Closed at once: this client may try another process, while one in the backlog would only wait.
        drop(self.tcp);
        let all_done = async { while open.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.drain, all_done).await.is_err() {
            tracing::warn!(listener.addr = %self.addr, "the drain takes too long; cutting the open connections");
        }
        Ok(())
    }
}

async fn connection(stream: TcpStream, permit: OwnedSemaphorePermit, router: Router, limits: Limits, drain: CancellationToken) {
    let _permit = permit;
    // Without this, small responses wait up to 40 ms for an acknowledgement (Nagle and delayed ACK).
    let _ = stream.set_nodelay(true);
    let Ok(Some(version)) = tokio::time::timeout(limits.first_byte, sniff(&stream)).await else { return };
    let stream = patience::Patient::new(stream, limits.stuck);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            if !names_one_host(&request) {
                return Ok(bad_request());
            }
            router.oneshot(request.map(Body::new)).await
        }
    });
    let ended = match version {
        Version::Http1 => {
            let (stream, timer) = idle::watch(stream, limits.headers, limits.idle);
            let connection = http1::Builder::new()
                .timer(timer)
                .header_read_timeout(limits.headers)
                .max_headers(HEAD_FIELDS)
                .max_header_size(HEAD_BYTES)
                .max_buf_size(2 * HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            finish(connection, limits, drain, http1::Connection::graceful_shutdown).await
        }
        Version::Http2 => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(100)
                .max_send_buf_size(STREAM_BYTES)
                .max_header_list_size(16 * 1024)
                .max_pending_accept_reset_streams(20)
                .max_local_error_reset_streams(1024)
                .adaptive_window(true)
                .keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            finish(connection, limits, drain, http2::Connection::graceful_shutdown).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// Runs a connection to its end. In the drain or at its maximum age, it takes no new requests and finishes the open ones.
async fn finish<C>(connection: C, limits: Limits, drain: CancellationToken, withdraw: fn(Pin<&mut C>)) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = drain.cancelled() => {}
        () = tokio::time::sleep(limits.age) => {}
    }
    withdraw(connection.as_mut());
    tokio::time::timeout(limits.grace, connection).await.unwrap_or(Ok(()))
}

/// Returns whether an HTTP/1.1 request has exactly one valid host (RFC 9112, section 3.2): a proxy may have read another.
fn names_one_host(request: &Request<Incoming>) -> bool {
    if request.version() != http::Version::HTTP_11 {
        return true;
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.is_empty() || Authority::try_from(host.as_bytes()).is_ok(),
        _ => false,
    }
}

fn bad_request() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

enum Version {
    Http1,
    Http2,
}

/// Peeks at the first bytes. hyper's own detection has no timeout, so a silent client would stay.
async fn sniff(stream: &TcpStream) -> Option<Version> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let n = stream.peek(&mut seen).await.ok().filter(|n| *n > 0)?;
        if seen[..n] != PREFACE[..n] {
            return Some(Version::Http1);
        }
        if n == PREFACE.len() {
            return Some(Version::Http2);
        }
        // A part of the preface: wait for more; `peek` would return the same bytes at once.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
