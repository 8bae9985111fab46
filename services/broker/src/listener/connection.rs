//! One connection: requests are read ahead, answers leave in request order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;

use super::frame::{End, Frames};
use crate::api;
use crate::api::{Pending, Reply, Unfit};
use crate::shared::Shared;

/// How long an answer may take once the log stops.
const LAST_WAIT: Duration = Duration::from_millis(200);

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error(transparent)]
    Input(#[from] End),
    #[error(transparent)]
    Request(#[from] Unfit),
    #[error("the client does not read its responses")]
    Output,
    #[error("the log is stopping")]
    Stopping,
}

/// Serves one connection to its end. Dropping the future closes it at once; what is queued for the writer is still stored.
pub(super) async fn serve(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr, stop: &CancellationToken) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(network.peer.address = %peer, error = %e, "cannot set TCP_NODELAY on a connection");
    }
    let (input, output) = stream.into_split();
    // `write` holds one answer more than the queue.
    let (queue, answers) = mpsc::channel(shared.settings.limits.pipeline.max(2) - 1);
    let owed = AtomicUsize::new(0);
    let reading = read(shared, input, peer, queue, &owed, stop);
    let writing = write(shared, output, answers, &owed, stop);
    match tokio::try_join!(reading, writing) {
        Ok(_) | Err(Closed::Input(End::Gone) | Closed::Stopping) => {}
        Err(Closed::Input(end @ End::Foreign(_))) => {
            tracing::warn!(network.peer.address = %peer, "closed a connection from {peer}: {end}");
        }
        Err(closed) => tracing::debug!(network.peer.address = %peer, "closed a connection: {closed}"),
    }
}

/// Reads requests and starts to answer them, as far ahead as the queue has room.
async fn read(
    shared: &Arc<Shared>,
    input: OwnedReadHalf,
    peer: SocketAddr,
    queue: mpsc::Sender<Pending>,
    owed: &AtomicUsize,
    stop: &CancellationToken,
) -> Result<(), Closed> {
    let limits = &shared.settings.limits;
    let host = format!("/{}", peer.ip());
    let mut frames = Frames::new(input, Arc::clone(&shared.memory));
    let mut idle = limits.first_byte;
    loop {
        let begun = tokio::select! {
            begun = frames.begun(idle) => begun?,
            () = stop.cancelled() => return Ok(()),
        };
        if !begun {
            // A client that waits for an answer is not idle.
            if owed.load(Ordering::Relaxed) > 0 {
                continue;
            }
            return Err(End::Idle(idle).into());
        }
        let (frame, memory) = frames.next(limits).await?;
        idle = limits.idle;
        let pending = api::begin(shared, &host, frame, memory).await?;
        owed.fetch_add(1, Ordering::Relaxed);
        if queue.send(pending).await.is_err() {
            return Ok(());
        }
    }
}

async fn write(
    shared: &Shared,
    mut output: impl AsyncWrite + Unpin,
    mut answers: mpsc::Receiver<Pending>,
    owed: &AtomicUsize,
    stop: &CancellationToken,
) -> Result<(), Closed> {
    while let Some(pending) = answers.recv().await {
        if let Some(Reply { bytes, memory }) = ready(pending, stop).await? {
            let taken = timeout(shared.settings.limits.frame, output.write_all(&bytes)).await;
            if !matches!(taken, Ok(Ok(()))) {
                return Err(Closed::Output);
            }
            drop(memory);
        }
        owed.fetch_sub(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Waits for an answer; once the log stops only for `LAST_WAIT`, because a long poll would delay the stop.
async fn ready(mut pending: Pending, stop: &CancellationToken) -> Result<Option<Reply>, Closed> {
    tokio::select! {
        reply = &mut pending => Ok(reply?),
        () = stop.cancelled() => match timeout(LAST_WAIT, pending).await {
            Ok(reply) => Ok(reply?),
            Err(_) => Err(Closed::Stopping),
        },
    }
}
