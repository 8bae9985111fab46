//! `minishop bench`: loads a running server over REST and reads `orders.processed`, so that one number covers the whole way.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use minishop_platform::bus::consume::{Start, Tail};
use serde::Deserialize;
use tokio::net::TcpStream;

/// What is loaded, with what, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where REST answers, as host:port.
    #[arg(long, env = "MINISHOP_BENCH_HTTP", default_value = "127.0.0.1:3000")]
    http: String,
    /// Bootstrap servers of the event log, to read `orders.processed`.
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    brokers: String,
    /// Prefix of the topics.
    #[arg(long, env = "MINISHOP_TOPIC_PREFIX", default_value = "")]
    topic_prefix: String,
    /// Connections, each with one request under way.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds of load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Measure acceptance alone: processed events are not waited for, so no worker need run.
    #[arg(long)]
    accept_only: bool,
    /// Print JSON instead of lines.
    #[arg(long)]
    json: bool,
}

/// Orders under way: when each was acknowledged.
type Open = Arc<Mutex<HashMap<String, Instant>>>;

struct Shared {
    args: Args,
    open: Open,
    accepts: Mutex<Histogram<u64>>,
    settled: Mutex<Histogram<u64>>,
    processed: AtomicU64,
    /// Processed events that came before their order's acknowledgement was noted.
    early: Mutex<HashMap<String, Instant>>,
    stop: AtomicBool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    order_id: String,
}

#[derive(Deserialize)]
struct Envelope {
    data: Named,
}

/// Runs the load and turns its outcome into an exit code.
pub async fn command(args: Args) -> ExitCode {
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the load, waits until what was accepted is processed (at most 30 s), and prints the figures.
async fn run(args: Args) -> anyhow::Result<()> {
    let shared = Arc::new(Shared {
        args: args.clone(),
        open: Arc::default(),
        accepts: Mutex::new(Histogram::new(3)?),
        settled: Mutex::new(Histogram::new(3)?),
        processed: AtomicU64::new(0),
        early: Mutex::default(),
        stop: AtomicBool::new(false),
    });
    let tail = Tail::open(&args.brokers, &[format!("{}orders.processed", args.topic_prefix)], Start::End)?;
    let reader = tokio::task::spawn_blocking({
        let shared = shared.clone();
        move || read_processed(&shared, &tail)
    });
    let begun = Instant::now();
    let mut load = tokio::task::JoinSet::new();
    for n in 0..args.connections {
        load.spawn(connection(shared.clone(), n, begun + Duration::from_secs(args.seconds)));
    }
    while let Some(done) = load.join_next().await {
        done??;
    }
    let loaded = begun.elapsed();
    let accepted = shared.accepts.lock().expect("no holder panics").len();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !args.accept_only && shared.processed.load(Ordering::Relaxed) < accepted && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let whole = begun.elapsed();
    shared.stop.store(true, Ordering::Relaxed);
    reader.await??;
    report(&shared, accepted, loaded, whole)
}

/// Sends orders one after the other on one connection until the time is up.
async fn connection(shared: Arc<Shared>, n: usize, until: Instant) -> anyhow::Result<()> {
    let stream = TcpStream::connect(&shared.args.http)
        .await
        .with_context(|| format!("cannot reach {}; is the server up?", shared.args.http))?;
    stream.set_nodelay(true)?;
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = async { connection.await.map_err(anyhow::Error::from) };
    let work = async {
        let mut histogram = Histogram::<u64>::new(3)?;
        let mut count = 0u64;
        while Instant::now() < until {
            let body = format!(
                r#"{{"customerId":"bench-{}","items":[{{"productId":"p1","qty":2,"price":10.5}}]}}"#,
                (count * 64 + n as u64) % 1000
            );
            let request = Request::post("/orders")
                .header("host", &shared.args.http)
                .header("content-type", "application/json")
                .header("x-idempotency-key", format!("bench-{}-{n}-{count}", std::process::id()))
                .body(Full::new(Bytes::from(body)))?;
            let begun = Instant::now();
            let answer = send.send_request(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            let now = Instant::now();
            if status.as_u16() != 201 {
                bail!("the server answered {status}: {}", String::from_utf8_lossy(&body[..body.len().min(300)]));
            }
            histogram.record(micros(now - begun))?;
            acknowledged(&shared, serde_json::from_slice::<Named>(&body)?.order_id, now);
            count += 1;
        }
        shared.accepts.lock().expect("no holder panics").add(&histogram)?;
        anyhow::Ok(())
    };
    // The connection ends with the sender; the load's result is what counts.
    tokio::select! { done = work => done, ended = driver => { ended?; bail!("the server closed the connection") } }
}

fn acknowledged(shared: &Shared, order: String, at: Instant) {
    // Held until the order stands in `open`, so that its event cannot pass between the two looks.
    let mut early = shared.early.lock().expect("no holder panics");
    match early.remove(&order) {
        Some(seen) => settle(shared, seen.saturating_duration_since(at)),
        None => drop(shared.open.lock().expect("no holder panics").insert(order, at)),
    }
}

fn settle(shared: &Shared, took: Duration) {
    shared.settled.lock().expect("no holder panics").record(micros(took)).expect("the histogram grows as needed");
    shared.processed.fetch_add(1, Ordering::Relaxed);
}

/// Reads processed events and times them from their order's acknowledgement.
fn read_processed(shared: &Shared, tail: &Tail) -> anyhow::Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        let Some(record) = tail.next(Duration::from_millis(50))? else { continue };
        let now = Instant::now();
        let Ok(envelope) = serde_json::from_slice::<Envelope>(record.value.as_deref().unwrap_or_default()) else { continue };
        // Lock order: early, then open, as in `acknowledged`.
        let mut early = shared.early.lock().expect("no holder panics");
        let acknowledged = shared.open.lock().expect("no holder panics").remove(&envelope.data.order_id);
        match acknowledged {
            Some(at) => {
                drop(early);
                settle(shared, now - at);
            }
            None => drop(early.insert(envelope.data.order_id, now)),
        }
    }
    Ok(())
}

fn report(shared: &Shared, accepted: u64, loaded: Duration, whole: Duration) -> anyhow::Result<()> {
    let accepts = shared.accepts.lock().expect("no holder panics");
    let settled = shared.settled.lock().expect("no holder panics");
    let processed = shared.processed.load(Ordering::Relaxed);
    let figures = serde_json::json!({
        "connections": shared.args.connections,
        "accepted": accepted,
        "processed": processed,
        "acceptsPerSecond": per_second(accepted, loaded),
        "endToEndPerSecond": per_second(processed, whole),
        "acceptMicros": {"p50": accepts.value_at_quantile(0.5), "p99": accepts.value_at_quantile(0.99), "max": accepts.max()},
        "createdToProcessedMicros": {"p50": settled.value_at_quantile(0.5), "p99": settled.value_at_quantile(0.99), "max": settled.max()},
    });
    if shared.args.json {
        println!("{figures}");
    } else {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    }
    if processed < accepted && !shared.args.accept_only {
        bail!("{} of {accepted} accepted orders were not seen processed within 30 s", accepted - processed);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
fn per_second(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64()) as u64
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
