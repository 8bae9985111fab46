//! Stands between the API and PostgreSQL, and cuts a connection between a commit and its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Ends with the test.
pub struct Proxy {
    pub addr: SocketAddr,
    cuts: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Forwards to `server`, but the first `cuts` statements that carry `marked` are answered by nothing but the end.
    pub async fn start(server: String, marked: &'static str, cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let left = Arc::new(AtomicUsize::new(cuts));
        let mut task = JoinSet::new();
        let cuts = left.clone();
        task.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                open.spawn(carry(near, TcpStream::connect(&server).await.unwrap(), marked, left.clone()));
            }
        });
        Self { addr, cuts, _task: task }
    }

    /// How many statements are still to be cut off.
    pub fn left(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, marked: &str, cuts: Arc<AtomicUsize>) {
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    let mut cut = false;
    loop {
        tokio::select! {
            read = near.read(&mut asked) => match read {
                Ok(n @ 1..) => {
                    let is_marked = asked[..n].windows(marked.len()).any(|part| part == marked.as_bytes());
                    cut |= is_marked && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                    if far.write_all(&asked[..n]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            read = far.read(&mut answered) => match read {
                // The server answers once it has committed.
                Ok(1..) if cut => return,
                Ok(n @ 1..) => {
                    if near.write_all(&answered[..n]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}
