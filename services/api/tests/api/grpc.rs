//! The gRPC listener: messages that do not parse, limits, floods, and gRPC-web.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use minishop_contracts::json;
use minishop_contracts::orders::v1::CreateOrderRequest;
use minishop_testkit::database::Engine;
use prost::Message as _;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceExt as _;

use crate::fields::refused_over_grpc;
use crate::grpc_web::{status, web};
use crate::harness::{B, request};
use crate::world::{World, on};

pub const CREATE: &str = "/minishop.orders.v1.OrderService/CreateOrder";

pub fn base() -> CreateOrderRequest {
    json::decode_command(B.as_bytes()).unwrap()
}

/// Puts the five bytes of its header before a message.
pub fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[flag], &length.to_be_bytes()[..], message].concat()
}

/// The outcome of a call.
#[derive(Debug)]
pub struct Outcome {
    pub http: u16,
    pub status: Option<String>,
    pub accept_encoding: Option<String>,
    pub details: bool,
}

pub async fn raw_call(channel: &Channel, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Outcome {
    let mut request = http::Request::post(path).header("te", "trailers");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(tonic::body::Body::new(Full::new(body.into()))).unwrap();
    let response = channel.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let trailers = body.collect().await.ok().and_then(|body| body.trailers().cloned()).unwrap_or_default();
    let find = |name: &str| {
        let value = head.headers.get(name).or_else(|| trailers.get(name));
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    Outcome {
        http: head.status.as_u16(),
        status: find("grpc-status"),
        accept_encoding: find("grpc-accept-encoding"),
        details: find("grpc-status-details-bin").is_some(),
    }
}

pub fn assert_bare(outcome: &Outcome, code: Code, what: &str) {
    let expected = (code as i32).to_string();
    assert_eq!((outcome.status.as_deref(), outcome.details), (Some(expected.as_str()), false), "{what}: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_do_not_parse_are_an_internal_error_of_the_protocol() {
    on(Engine::Sqlite, async |world| {
        let api = world.api().await;
        let channel = api.channel().await;
        let good = base().encode_to_vec();
        // Field 1 is a string, field 15 is unknown and opens a group.
        let bad_text = [&[0x0a, 0x02][..], b"\xffx"].concat();
        let groups = [vec![0x7b; 101], vec![0x7c; 101]].concat();
        let half = &framed(0, &good)[..good.len() / 2];
        for (what, headers, body) in [
            ("compressed without saying how", &[][..], framed(1, &good)),
            ("unknown flag", &[], framed(2, &good)),
            ("gzip that is none", &[("grpc-encoding", "gzip")], framed(1, &good)),
            ("no protobuf", &[], framed(0, &[0xff, 0xff])),
            ("text that is not UTF-8", &[], framed(0, &bad_text)),
            ("groups 101 deep", &[], framed(0, &groups)),
            ("half a message", &[], half.to_vec()),
            ("no message", &[], Vec::new()),
        ] {
            assert_bare(&raw_call(&channel, CREATE, headers, body).await, Code::Internal, what);
        }
        assert_eq!(api.orders().await, 0);
        assert_eq!(
            raw_call(&channel, CREATE, &[], framed(0, &good)).await.status.as_deref(),
            Some("0"),
            "the connection goes on"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_offered_is_unimplemented() {
    on(Engine::Sqlite, async |world| {
        let api = world.api_with(|config| config.reflection = false).await;
        let channel = api.channel().await;
        let good = framed(0, &base().encode_to_vec());
        let snappy = raw_call(&channel, CREATE, &[("grpc-encoding", "snappy")], good.clone()).await;
        assert_bare(&snappy, Code::Unimplemented, "snappy");
        let offered: BTreeSet<_> = snappy.accept_encoding.as_deref().unwrap().split(',').map(str::trim).collect();
        assert!(offered.is_superset(&BTreeSet::from(["gzip", "zstd"])), "{offered:?}");
        for path in [
            "/minishop.orders.v1.OrderService/Nope",
            "/minishop.nope.v1.Nope/Nope",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            assert_bare(&raw_call(&channel, path, &[], good.clone()).await, Code::Unimplemented, path);
        }
        let open = world.api().await;
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let answer = raw_call(&open.channel().await, reflection, &[], framed(0, &[0x3a, 0x00])).await;
        assert_eq!(answer.status.as_deref(), Some("0"), "switched on by default");
        api.works().await;
    })
    .await;
}

pub async fn wrong_messages_are_named_and_unknown_fields_ignored(world: &World) {
    let api = world.api().await;
    let empty = refused_over_grpc(&api, CreateOrderRequest::default()).await;
    assert_eq!(empty, BTreeSet::from(["customerId REQUIRED".to_owned(), "items REQUIRED".to_owned()]));
    // Fields 15 and 500, both strings.
    let unknown = [&base().encode_to_vec()[..], &[0x7a, 1, b'x'], &[0xa2, 0x1f, 1, b'x']].concat();
    assert_eq!(raw_call(&api.channel().await, CREATE, &[], framed(0, &unknown)).await.status.as_deref(), Some("0"));
    assert_eq!(api.orders().await, 1);
}

pub async fn a_deadline_that_has_passed_is_no_work_and_an_odd_one_is_ignored(world: &World) {
    let api = world.api().await;
    let good = framed(0, &base().encode_to_vec());
    // gRPC clients end such a call themselves; a web page leaves that to the server.
    let call = async |timeout: &str| {
        let headers = format!("grpc-timeout: {timeout}\r\n");
        status(&web(&api, "localhost", "application/grpc-web", &headers, &good).await)
    };
    assert_eq!(call("0n").await, Code::DeadlineExceeded);
    assert_eq!(api.orders().await, 0);
    for odd in ["1x", "123456789S", "99999999H"] {
        assert_eq!(call(odd).await, Code::Ok, "{odd}");
    }
    assert_eq!(api.events().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_no_grpc_is_told_what_is_spoken_here() {
    on(Engine::Sqlite, async |world| {
        let api = world.api().await;
        for kind in ["text/plain", "application/json", "application/grpc+json", ""] {
            let headers = [("connection", "close"), ("content-type", kind)];
            let headers = if kind.is_empty() { &headers[..1] } else { &headers[..] };
            for (method, path) in [("POST", CREATE), ("GET", "/")] {
                let answer = api.raw_to(api.grpc, &request(method, path, headers, b"{}")).await;
                assert_eq!(answer.status, 415, "{kind}");
                assert!(String::from_utf8_lossy(&answer.body).contains("gRPC-web"), "{answer:?}");
            }
        }
        let over_h2 = raw_call(&api.channel().await, CREATE, &[("content-type", "application/json")], "{}").await;
        assert_eq!(over_h2.http, 415);
        api.works().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_is_no_base64_is_ignored_and_raw_line_breaks_end_the_stream() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    on(Engine::Sqlite, async |world| {
        let api = world.api().await;
        let good = framed(0, &base().encode_to_vec());
        let odd = raw_call(&api.channel().await, CREATE, &[("x-odd-bin", "!!!")], good).await;
        assert_eq!(odd.status.as_deref(), Some("0"), "{odd:?}");
        for raw in [b"a\rb", b"a\nb", b"a\0b"] {
            let mut socket = tokio::net::TcpStream::connect(api.grpc).await.unwrap();
            // POST http /, x: the raw value, in one HEADERS frame that ends the stream.
            let block = [&[0x83, 0x86, 0x84, 0x00, 0x01, b'x', 0x03][..], raw].concat();
            let head = [0, 0, u8::try_from(block.len()).unwrap(), 1, 0x5, 0, 0, 0, 1];
            let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
            let bytes = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &head, &block].concat();
            socket.write_all(&bytes).await.unwrap();
            let mut all = Vec::new();
            let refused = async {
                // RST_STREAM (3), GOAWAY (7), or the end of the connection.
                while !frame_kinds(&all).iter().any(|kind| matches!(kind, 3 | 7)) {
                    if socket.read_buf(&mut all).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(5), refused).await.expect("an error");
            assert!(!frame_kinds(&all).contains(&1), "and no answer: {all:?}");
        }
        assert_eq!(api.orders().await, 1);
    })
    .await;
}

/// Returns the types of the HTTP/2 frames in `bytes`.
fn frame_kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, rest @ ..] = bytes {
        kinds.push(*kind);
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        bytes = rest.get(5 + length..).unwrap_or_default();
    }
    kinds
}

pub async fn a_service_that_is_not_known_is_watched_as_the_protocol_says(world: &World) {
    let mut api = world.api().await;
    let mut client = HealthClient::new(api.channel().await);
    let asked = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let mut unknown = client.watch(asked("shop.Unknown")).await.unwrap().into_inner();
    let told = unknown.message().await.unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::ServiceUnknown);
    let mut known = client.watch(asked("minishop.orders.v1.OrderService")).await.unwrap().into_inner();
    assert_eq!(known.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(client.check(asked("shop.Unknown")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.check(asked("")).await.unwrap().into_inner().status(), ServingStatus::Serving);
    // Watches stay open until the drain and end properly then, before the connection is closed.
    let next = tokio::time::timeout(Duration::from_millis(200), unknown.message()).await;
    assert!(next.is_err(), "the stream stays open: {next:?}");
    api.drain.cancel();
    assert_eq!(known.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!((known.message().await.unwrap(), unknown.message().await.unwrap()), (None, None));
    drop((client, known, unknown));
    tokio::time::timeout(Duration::from_secs(8), api.ended()).await.expect("no watch holds up the drain");
}
