//! A proxy between the API and PostgreSQL. It cuts a connection between a commit and its answer, or ends it as a server does that
//! is stopped while a commit waits for the disk.

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

/// What a server that is stopped sends after a commit instead of `ReadyForQuery`: FATAL 57P01.
const ENDED: &[u8] = b"E\0\0\0\x5bSFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0Fpostgres.c\0\0";
/// `CommandComplete` of a commit; then `ReadyForQuery`.
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";
const READY: &[u8] = b"Z\0\0\0\x05I";

impl Proxy {
    /// Forwards to `server`, but ends the first connection that carries `marked` right after its next `COMMIT`: the client gets
    /// `CommandComplete`, then the end.
    pub async fn ending(server: &str, marked: &'static str) -> Self {
        Self::before(server, 1, move |near, far, cuts| end_behind_commit(near, far, marked, cuts)).await
    }

    /// Forwards to `server`, but closes the connection instead of answering the first `cuts` statements that carry `marked`.
    pub async fn start(server: &str, marked: &'static str, cuts: usize) -> Self {
        Self::before(server, cuts, move |near, far, cuts| carry(near, far, marked, cuts)).await
    }

    async fn before<F>(
        server: &str,
        cuts: usize,
        carry: impl Fn(TcpStream, TcpStream, Arc<AtomicUsize>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, server, cuts) = (listener.local_addr().unwrap(), server.to_owned(), Arc::new(AtomicUsize::new(cuts)));
        let (mut task, left) = (JoinSet::new(), cuts.clone());
        task.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                open.spawn(carry(near, TcpStream::connect(&server).await.unwrap(), left.clone()));
            }
        });
        Self { addr, cuts, _task: task }
    }

    /// Returns how many statements are still to be cut off.
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

async fn end_behind_commit(mut near: TcpStream, mut far: TcpStream, marked: &str, cuts: Arc<AtomicUsize>) {
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    let mut is_marked = false;
    loop {
        tokio::select! {
            read = near.read(&mut asked) => match read {
                Ok(n @ 1..) => {
                    is_marked |= has(&asked[..n], marked.as_bytes());
                    if far.write_all(&asked[..n]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            read = far.read(&mut answered) => match read {
                Ok(n @ 1..) => {
                    let said = &answered[..n];
                    let last = is_marked && has(said, COMMITTED) && said.ends_with(READY);
                    if last && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                        let _ = near.write_all(&[&said[..n - READY.len()], ENDED].concat()).await;
                        return;
                    }
                    if near.write_all(said).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
