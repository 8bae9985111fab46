//! A door to a server that a test can close.

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Forwards connections until it is dropped, which cuts them all.
pub async fn forward(door: TcpListener, server: String) {
    let mut open = JoinSet::new();
    loop {
        let (mut near, _) = door.accept().await.unwrap();
        let server = server.clone();
        open.spawn(async move {
            let mut far = TcpStream::connect(server).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
    }
}
