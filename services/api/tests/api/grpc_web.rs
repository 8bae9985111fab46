//! gRPC-Web.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use tonic::Code;

use crate::grpc::{CREATE, base, framed};
use crate::harness::{Answer, Api};
use crate::world::World;

/// Sends one call as a page in a browser does.
pub async fn web(api: &Api, host: &str, kind: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST {CREATE} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: {kind}\r\naccept: {kind}\r\n\
         x-grpc-web: 1\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    api.raw_to(api.grpc, &[head.as_bytes(), body].concat()).await
}

/// Decodes a chunked HTTP/1.1 body.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let line = body.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..line]).unwrap(), 16).unwrap();
        body = &body[line + 2..];
        whole.extend_from_slice(&body[..size]);
        if size == 0 {
            return whole;
        }
        body = &body[size + 2..];
    }
}

/// Splits a gRPC-web body into the message, if there is one, and the trailers.
pub fn frames(answer: &Answer) -> (Option<Vec<u8>>, String) {
    let mut body = if answer.header("transfer-encoding").is_some() { unchunked(&answer.body) } else { answer.body.clone() };
    if answer.header("content-type").unwrap().contains("text") {
        body = STANDARD.decode(&body).unwrap();
    }
    let (mut rest, mut message, mut trailers) = (&body[..], None, String::new());
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        let part = rest[5..5 + length].to_vec();
        if rest[0] & 0x80 == 0 {
            message = Some(part);
        } else {
            trailers = String::from_utf8(part).unwrap().replace(' ', "");
        }
        rest = &rest[5 + length..];
    }
    (message, trailers)
}

/// Returns the gRPC status of an answer, from its head or its trailers.
pub fn status(answer: &Answer) -> Code {
    let trailers = || frames(answer).1.split("grpc-status:").nth(1).unwrap().lines().next().unwrap().trim().to_owned();
    let text = answer.header("grpc-status").map_or_else(trailers, str::to_owned);
    Code::from(text.parse::<i32>().unwrap())
}

pub async fn grpc_web_carries_calls_and_refusals_over_http_1(world: &World) {
    let api = world.api().await;
    let good = framed(0, &base().encode_to_vec());
    let key = "x-idempotency-key: web\r\n";
    for (kind, body) in [
        ("application/grpc-web", good.clone()),
        ("application/grpc-web+proto", good.clone()),
        ("application/grpc-web-text", STANDARD.encode(&good).into_bytes()),
    ] {
        let answer = web(&api, "localhost", kind, key, &body).await;
        assert_eq!((answer.status, status(&answer)), (200, Code::Ok), "{answer:?}");
        assert_eq!(answer.header("x-idempotency-key"), Some("web"));
        assert!(!frames(&answer).0.expect("the reply").is_empty());
    }
    assert_eq!(api.orders().await, 1, "the same key");
    let refused = web(&api, "localhost", "application/grpc-web", key, &framed(0, &[])).await;
    assert_eq!(status(&refused), Code::InvalidArgument, "{refused:?}");
    let foreign = web(&api, "evil.example", "application/grpc-web", key, &good).await;
    assert_eq!(foreign.status, 421, "a page that reached this listener by rebinding a name");
}
