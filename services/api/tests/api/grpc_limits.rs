//! What a client of the gRPC listener may use up.

use std::io::Write as _;
use std::time::Duration;

use minishop_testkit::database::Engine;
use prost::Message as _;
use tonic::Code;

use crate::grpc::{CREATE, assert_bare, base, framed, raw_call};
use crate::world::on;

/// Returns the peak memory of this process since the last call, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_unfolding_messages_are_cut_off_before_they_fill_the_memory() {
    const UNFOLDED: usize = 1 << 30;
    on(Engine::Sqlite, async |world| {
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

#[tokio::test(flavor = "multi_thread")]
async fn metadata_above_its_limit_costs_one_stream() {
    on(Engine::Sqlite, async |world| {
        let api = world.api().await;
        let channel = api.channel().await;
        let good = framed(0, &base().encode_to_vec());
        let large = "x".repeat(17 * 1024);
        assert_eq!(raw_call(&channel, CREATE, &[("x-large", &large)], good.clone()).await.http, 431);
        assert_eq!(raw_call(&channel, CREATE, &[], good).await.status.as_deref(), Some("0"), "the same connection");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_leave_other_clients_served() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    on(Engine::Sqlite, async |world| {
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
