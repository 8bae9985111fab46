//! Requests to servers that are not ours: bounded in time and size, no redirect followed, private targets refused where the
//! operator says so.

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

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How much of an answer is read; a longer one counts by its status, and its connection is closed.
const READ: usize = 65_536;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);

type HttpClient = Client<Keeping<HttpsConnector<HttpConnector<Resolver>>>, Full<Bytes>>;

/// Sends requests to servers that are not ours. Cheap to clone; connections are shared.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: HttpClient,
    /// Makes a new connection for each request.
    fresh: HttpClient,
    timeout: Duration,
    targets: Targets,
}

/// Which addresses may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    /// Any.
    Any,
    /// Only addresses of the public internet: where others choose the target, it must not reach into our own network.
    Public,
}

impl Targets {
    /// Spells the choice as the configuration does.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Public => "public",
        }
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status; a redirect is an answer like any other.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The whole answer was not there in time.
    #[error("no whole answer within {0:?}")]
    TimedOut(Duration),
    /// The target is not of the public internet.
    #[error("the target is a private address, which this configuration refuses")]
    PrivateTarget,
    /// No connection, or not HTTP.
    #[error("{0}")]
    Failed(String),
}

impl Outbound {
    /// Prepares a client whose requests take at most `timeout`, the whole answer included.
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

    /// Posts a body and waits for the whole answer.
    ///
    /// A connection that was kept from an earlier request may be closed by the server at the very moment when the next one is sent.
    /// If nothing of an answer has come, the request is sent once more, at once, on a new connection.
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
            // What it says does not matter, but only after it was read does the connection serve another request.
            match Limited::new(body, READ).collect().await {
                Err(error) if !error.is::<http_body_util::LengthLimitError>() => {
                    return Err(OutboundError::Failed(format!("the answer broke off: {error}")));
                }
                _ => {}
            }
            Ok(Answer { status: head.status, headers: head.headers })
        };
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(OutboundError::TimedOut(self.timeout)))
    }
}

/// Finds the innermost reason, which is what an operator needs.
fn failed(error: &(dyn std::error::Error + 'static)) -> OutboundError {
    let mut reason = error;
    while let Some(source) = reason.source() {
        // An I/O error names the source of what it wraps, and not that itself.
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

/// Tells whether an address is not of the public internet (IANA special-purpose registries, RFC 6890).
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
    // Only global unicast is public, and of it neither the addresses that wrap IPv4 ones (RFC 3056, RFC 4380) nor those for
    // protocols and documents.
    let special = first == 0x2002 || (first == 0x2001 && (second < 0x0200 || second == 0x0db8));
    (first & 0xe000) != 0x2000 || special
}

/// Resolves names, and drops addresses that may not be called. It looks at the very addresses that are connected to, so a name
/// that changes between check and use is no way around it.
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
