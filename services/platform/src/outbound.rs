//! Requests to third-party servers: bounded in time and size, redirects not followed, private targets refused if so configured.

mod kept;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kept::{Heard, Keeping};
use tower::Service;

/// The timeout for connecting.
const CONNECT: Duration = Duration::from_secs(2);
/// The most bytes read of a response. A longer one counts by its status, and its connection is closed.
const READ: usize = 65_536;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);

type HttpClient = Client<Keeping<HttpsConnector<HttpConnector<Resolver>>>, Full<Bytes>>;

/// Sends requests to third-party servers. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: HttpClient,
    /// Opens a new connection for each request.
    fresh: HttpClient,
    timeout: Duration,
    targets: Targets,
}

/// Which addresses may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    Any,
    /// Only the public internet: where others choose the target, it must not be in our own network.
    Public,
}

impl Targets {
    /// Returns the configured spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Public => "public",
        }
    }
}

/// A server's response.
#[derive(Debug)]
pub struct Answer {
    /// The status. Redirects are not followed.
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// Why there was no response.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The response was not complete in time.
    #[error("no complete response within {0:?}")]
    TimedOut(Duration),
    /// The target is not on the public internet.
    #[error("the target is a private address, which this configuration refuses")]
    PrivateTarget,
    /// No connection, or not HTTP.
    #[error("{0}")]
    Failed(String),
}

impl Outbound {
    /// Creates a client whose requests take at most `timeout`, until the whole response is read.
    pub fn new(timeout: Duration, targets: Targets) -> Self {
        let mut http = HttpConnector::new_with_resolver(Resolver { system: GaiResolver::new(), targets });
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_nodelay(true);
        let https = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(http);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        let client = builder.build(Keeping(https.clone()));
        Self { client, fresh: builder.pool_max_idle_per_host(0).build(Keeping(https)), timeout, targets }
    }

    /// Posts a body and waits for the whole response.
    ///
    /// A server may close a reused connection at the very moment when the next request is sent. If no byte of the response has
    /// arrived, the request is sent once more, at once, on a new connection.
    pub async fn post(&self, target: &Uri, headers: HeaderMap, body: Bytes) -> Result<Answer, OutboundError> {
        if self.targets == Targets::Public && target.host().and_then(literal).is_some_and(is_private) {
            return Err(OutboundError::PrivateTarget);
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.clone();
        *request.headers_mut() = headers;
        let exchange = async {
            let again = request.clone();
            let answer = match self.client.request(request).await {
                Err(error) if Heard::nothing(&error) => self.fresh.request(again).await,
                first => first,
            };
            let (head, body) = answer.map_err(|error| failed(&error))?.into_parts();
            // The body does not matter, but the connection can be reused only after it was read.
            match Limited::new(body, READ).collect().await {
                Err(error) if !error.is::<http_body_util::LengthLimitError>() => {
                    return Err(OutboundError::Failed(format!("the response was cut off: {error}")));
                }
                _ => {}
            }
            Ok(Answer { status: head.status, headers: head.headers })
        };
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(OutboundError::TimedOut(self.timeout)))
    }
}

/// Returns the innermost cause, which is what an operator needs.
fn failed(error: &(dyn std::error::Error + 'static)) -> OutboundError {
    let mut reason = error;
    while let Some(source) = reason.source() {
        // The `source` of an I/O error skips the error that it wraps.
        let wrapped = source.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if wrapped.and_then(|wrapped| wrapped.downcast_ref::<Refused>()).is_some() {
            return OutboundError::PrivateTarget;
        }
        reason = source;
    }
    OutboundError::Failed(reason.to_string())
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Returns whether an address is outside the public internet (IANA special-purpose registries, RFC 6890).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or_else(|| is_private_v6(v6), is_private_v4),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b)) // shared by carriers, RFC 6598
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19)) // benchmarks, RFC 2544
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Only global unicast is public, except addresses that embed IPv4 ones (RFC 3056, RFC 4380) and those for protocols and
    // documentation.
    let special = first == 0x2002 || (first == 0x2001 && (second < 0x0200 || second == 0x0db8));
    (first & 0xe000) != 0x2000 || special
}

/// Resolves names and drops addresses that may not be called. It checks the very addresses that are connected to, so a name that
/// changes after the check cannot bypass it.
#[derive(Debug, Clone)]
struct Resolver {
    system: GaiResolver,
    targets: Targets,
}

/// Every address of a name is private.
#[derive(Debug, thiserror::Error)]
#[error("every address of this name is private")]
struct Refused;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, targets) = (self.system.call(name), self.targets);
        Box::pin(async move {
            let mut addresses: Vec<SocketAddr> = found.await?.collect();
            if targets == Targets::Public {
                addresses.retain(|address| !is_private(address.ip()));
                if addresses.is_empty() {
                    return Err(io::Error::other(Refused));
                }
            }
            Ok(addresses.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_our_own_networks_are_private() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fc00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "ff02::1",
        ] {
            assert!(is_private(private.parse().expect("an address")), "{private}");
        }
        for public in ["1.1.1.1", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1"] {
            assert!(!is_private(public.parse().expect("an address")), "{public}");
        }
    }

    #[tokio::test]
    async fn a_private_target_is_refused_by_address_and_by_name() {
        let outbound = Outbound::new(Duration::from_secs(5), Targets::Public);
        for target in ["http://127.0.0.1:9/", "http://[::1]:9/", "http://localhost:9/"] {
            let answer = outbound.post(&Uri::from_static(target), HeaderMap::new(), Bytes::new()).await;
            assert!(matches!(answer, Err(OutboundError::PrivateTarget)), "{target}: {answer:?}");
        }
    }
}
