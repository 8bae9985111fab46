//! The gRPC listener: messages that do not parse, limits, floods, and gRPC-web.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use minishop_contracts::json;
use minishop_contracts::orders::v1::CreateOrderRequest;
use prost::Message as _;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceExt as _;

use crate::fields::refused_over_grpc;
use crate::harness::{Answer, Api, B, request};
use crate::world::{Kind, World, on};

const CREATE: &str = "/minishop.orders.v1.OrderService/CreateOrder";

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
struct Outcome {
    http: u16,
    status: Option<String>,
    accept_encoding: Option<String>,
    details: bool,
}

async fn raw_call(channel: &Channel, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Outcome {
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

fn assert_bare(outcome: &Outcome, code: Code, what: &str) {
    let expected = (code as i32).to_string();
    assert_eq!((outcome.status.as_deref(), outcome.details), (Some(expected.as_str()), false), "{what}: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_do_not_parse_are_an_internal_error_of_the_protocol() {
    on(Kind::Sqlite, async |world| {
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
    on(Kind::Sqlite, async |world| {
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

/// Returns the peak memory of this process since the last call, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_unfolding_messages_are_cut_off_before_they_fill_the_memory() {
    const UNFOLDED: usize = 1 << 30;
    on(Kind::Sqlite, async |world| {
        let api = world.api().await;
        let channel = api.channel().await;
        let zeros = vec![0; 1 << 20];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
        for _ in 0..UNFOLDED / zeros.len() {
            gzip.write_all(&zeros).unwrap();
            zstd.write_all(&zeros).unwrap();
        }
        let (mut gzip, zstd) = (gzip.finish().unwrap(), zstd.finish().unwrap());
        // A message above 1 MiB is refused undecompressed, so this one is cut; its output exceeds the limit before the cut.
        gzip.truncate(1_000_000);
        let large = framed(0, &vec![0; 1_048_577]);
        api.works().await;
        peak_kib();
        let before = peak_kib();
        assert_bare(&raw_call(&channel, CREATE, &[], large).await, Code::OutOfRange, "1 048 577 bytes");
        assert_bare(&raw_call(&channel, CREATE, &[], vec![0, 0xff, 0xff, 0xff, 0xff]).await, Code::OutOfRange, "4 GiB said");
        for (encoding, bomb) in [("gzip", gzip), ("zstd", zstd)] {
            let answer = raw_call(&channel, CREATE, &[("grpc-encoding", encoding)], framed(1, &bomb)).await;
            assert_bare(&answer, Code::ResourceExhausted, encoding);
        }
        let grown = peak_kib().saturating_sub(before);
        assert!(grown < 24 * 1024, "{grown} KiB for messages of at most 1 MiB, each held by both sides of this test");
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
    on(Kind::Sqlite, async |world| {
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
    on(Kind::Sqlite, async |world| {
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

#[tokio::test(flavor = "multi_thread")]
async fn metadata_above_its_limit_costs_one_stream() {
    on(Kind::Sqlite, async |world| {
        let api = world.api().await;
        let channel = api.channel().await;
        let good = framed(0, &base().encode_to_vec());
        let large = "x".repeat(17 * 1024);
        assert_eq!(raw_call(&channel, CREATE, &[("x-large", &large)], good.clone()).await.http, 431);
        assert_eq!(raw_call(&channel, CREATE, &[], good).await.status.as_deref(), Some("0"), "the same connection");
    })
    .await;
}

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
fn frames(answer: &Answer) -> (Option<Vec<u8>>, String) {
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

#[tokio::test(flavor = "multi_thread")]
async fn floods_leave_other_clients_served() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    on(Kind::Sqlite, async |world| {
        let api = world.api().await;
        let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
            [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
        };
        // POST http /, content-type: application/grpc
        let block = [&[0x83, 0x86, 0x84, 0x0f, 0x10, 0x10][..], b"application/grpc"].concat();
        let stream = |n: u32| n * 2 + 1;
        let floods: Vec<(&str, Vec<u8>, bool)> = vec![
            ("streams against the settings", (0..10_000).flat_map(|n| frame(1, 0x4, stream(n), &block)).collect(), true),
            (
                "streams that are reset at once",
                (0..10_000)
                    .flat_map(|n| [frame(1, 0x4, stream(n), &block), frame(3, 0, stream(n), &[0, 0, 0, 8])].concat())
                    .collect(),
                true,
            ),
            (
                "endless headers",
                std::iter::once(frame(1, 0, 1, &block)).chain((0..2000).map(|_| frame(9, 0, 1, &[0; 8192]))).flatten().collect(),
                true,
            ),
            ("pings", (0..10_000).flat_map(|_| frame(6, 0, 0, &[0; 8])).collect(), false),
            ("settings", (0..10_000).flat_map(|_| frame(4, 0, 0, &[])).collect(), false),
        ];
        for (what, bytes, closes) in floods {
            let mut socket = tokio::net::TcpStream::connect(api.grpc).await.unwrap();
            socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
            socket.write_all(&frame(4, 0, 0, &[])).await.unwrap();
            let (mut read, mut write) = socket.split();
            let flood = async { drop(write.write_all(&bytes).await) };
            let answers = async {
                let (mut all, mut part) = (0, vec![0; 65_536]);
                while let Ok(n @ 1..) = read.read(&mut part).await {
                    all += n;
                    // Each ping is answered with 17 bytes, each SETTINGS frame with 9: at 90,000 all are answered.
                    if !closes && all >= 90_000 {
                        break;
                    }
                }
            };
            let limit = Duration::from_secs(10);
            let others = async { tokio::time::timeout(limit, api.works()).await.expect(what) };
            let flooded = tokio::time::timeout(limit, async { tokio::join!(flood, answers) });
            let (ended, ()) = tokio::join!(flooded, others);
            assert!(ended.is_ok(), "{what}: the connection is closed, or everything answered");
        }
    })
    .await;
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
