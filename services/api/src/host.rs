//! The host names that a loopback listener accepts.

use std::net::{Ipv4Addr, SocketAddr};

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// Returns whether `listener` may serve a request. Protects loopback listeners from web pages that rebind their own DNS name to
/// them.
///
/// All hosts in the request must be loopback: the `host` header, and the target's authority if it has one (HTTP/2, proxies).
pub fn is_ours(listener: SocketAddr, headers: &HeaderMap, uri: &Uri) -> bool {
    if !listener.ip().is_loopback() {
        return true;
    }
    let sent = headers.get(HOST).map(|value| value.to_str().unwrap_or_default());
    let mut hosts = sent.into_iter().chain(uri.authority().map(Authority::as_str)).peekable();
    hosts.peek().is_some() && hosts.all(is_loopback)
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    match authority.host() {
        "[::1]" => true,
        name => name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_told_from_foreign_ones() {
        for ours in ["localhost", "LOCALHOST:3000", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:3000"] {
            assert!(is_loopback(ours), "{ours}");
        }
        for foreign in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "", ":80", "a b"]
        {
            assert!(!is_loopback(foreign), "{foreign}");
        }
    }

    #[test]
    fn every_host_that_is_named_counts() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 3000));
        let headers = |host: &'static str| HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
        let uri = |text: &'static str| Uri::from_static(text);
        assert!(is_ours(loopback, &headers("localhost"), &uri("/orders")));
        assert!(is_ours(loopback, &HeaderMap::new(), &uri("http://localhost/orders")), "HTTP/2 has it in the target");
        assert!(!is_ours(loopback, &HeaderMap::new(), &uri("/orders")));
        assert!(!is_ours(loopback, &headers("localhost"), &uri("http://evil.example/orders")));
        assert!(is_ours(SocketAddr::from(([0, 0, 0, 0], 3000)), &headers("evil.example"), &uri("/orders")));
    }
}
