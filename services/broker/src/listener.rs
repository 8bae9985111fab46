//! The listener: accepts connections up to the limit and gives each a task.

mod connection;
mod frame;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// Pause after a failed `accept`: the process has no free file descriptor until a connection closes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time that connections have after `stop` to send the answers that are ready.
const GRACE: Duration = Duration::from_millis(500);

/// Serves until `stop`; then connections read no more requests, send the answers that are ready, and end.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(&shared, &mut connections, stream, peer, &stop),
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept a connection to the event log");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => note_panic(ended),
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    let drain = async {
        while let Some(ended) = connections.join_next().await {
            note_panic(ended);
        }
    };
    if tokio::time::timeout(GRACE, drain).await.is_err() {
        tracing::debug!("cutting the open connections to the event log");
    }
}

fn admit(shared: &Arc<Shared>, connections: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr, stop: &CancellationToken) {
    if connections.len() >= shared.settings.limits.connections {
        tracing::debug!(network.peer.address = %peer, "refusing a connection: {} are already open", connections.len());
        return;
    }
    let (shared, stop) = (Arc::clone(shared), stop.clone());
    connections.spawn(async move {
        connection::serve(&shared, stream, peer, &stop).await;
    });
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(e) = ended
        && e.is_panic()
    {
        tracing::error!(error = %e, "a connection to the event log panicked");
    }
}
