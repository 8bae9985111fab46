//! Clients that create orders without a pause.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::endpoint::FAILING;
use super::track::Track;
use super::{Args, micros};

/// The number of customers.
const CUSTOMERS: u64 = 1000;
/// The consecutive connections that go to one API. `CUSTOMERS` is an odd multiple of it, so that the orders of each customer go
/// to all APIs.
const BLOCK: usize = 8;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    order_id: String,
}

/// Sends one order.
pub async fn one(args: &Args, track: &Track) -> anyhow::Result<()> {
    let http = &args.http[0];
    connected(http, async |send| order(http, track, send, "bench-first", "first").await.map(drop)).await
}

/// Sends orders on all connections until the time is up; returns how long each took, and how many to wait for.
pub async fn run(args: &Args, track: &Arc<Track>, until: Instant) -> anyhow::Result<(Histogram<u64>, u64)> {
    let mut load = tokio::task::JoinSet::new();
    for n in 0..args.connections {
        let http = args.http[n / BLOCK % args.http.len()].clone();
        load.spawn(client(args.clone(), http, track.clone(), n as u64, until));
    }
    let (mut accepts, mut awaited) = (Histogram::new(3)?, 0);
    while let Some(done) = load.join_next().await {
        let (histogram, count) = done??;
        accepts.add(&histogram)?;
        awaited += count;
    }
    Ok((accepts, awaited))
}

/// Sends orders one after the other on one connection until the time is up.
async fn client(args: Args, http: String, track: Arc<Track>, n: u64, until: Instant) -> anyhow::Result<(Histogram<u64>, u64)> {
    let (mut accepts, mut awaited) = (Histogram::new(3)?, 0);
    connected(&http, async |send| {
        for count in 0.. {
            if Instant::now() >= until {
                break;
            }
            let customer = (count * args.connections as u64 + n) % CUSTOMERS;
            // Spread evenly, so that every connection has some.
            let fails = customer % 100 < args.failing;
            let name = format!("{}{customer}", if fails { FAILING } else { "bench-" });
            let took = order(&http, &track, send, &name, &format!("{n}-{count}")).await?;
            accepts.record(took)?;
            awaited += u64::from(!fails);
        }
        Ok(())
    })
    .await?;
    Ok((accepts, awaited))
}

/// Runs `work` on a new connection.
async fn connected(
    http: &str,
    work: impl AsyncFnOnce(&mut SendRequest<Full<Bytes>>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stream = TcpStream::connect(http).await.with_context(|| format!("cannot reach {http}; check that it is running"))?;
    stream.set_nodelay(true)?;
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = async { connection.await.map_err(anyhow::Error::from) };
    // The connection ends with the sender; only the result of `work` counts.
    tokio::select! { done = work(&mut send) => done, ended = driver => { ended?; bail!("the server closed the connection") } }
}

/// Sends one order; returns how many microseconds its acknowledgement took.
async fn order(http: &str, track: &Track, send: &mut SendRequest<Full<Bytes>>, customer: &str, key: &str) -> anyhow::Result<u64> {
    let body = format!(r#"{{"customerId":"{customer}","items":[{{"productId":"p1","qty":2,"price":10.5}}]}}"#);
    let request = Request::post("/orders")
        .header("host", http)
        .header("content-type", "application/json")
        .header("x-idempotency-key", format!("bench-{}-{key}", std::process::id()))
        .body(Full::new(Bytes::from(body)))?;
    let begun = Instant::now();
    let answer = send.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    let now = Instant::now();
    if status.as_u16() != 201 {
        bail!("the server answered {status}: {}", String::from_utf8_lossy(&body[..body.len().min(300)]));
    }
    track.acknowledged(serde_json::from_slice::<Created>(&body)?.order_id, now);
    Ok(micros(now - begun))
}
